# The operator's image: one static program and the public certificate authorities, nothing else.
#
#   docker build --tag registry.example.com/countersign:0.1.0 .

# The host of this image is musl, so what cargo builds here is static, on amd64 and arm64 alike.
FROM rust:1.95-alpine AS build
# ring and psm, two dependencies, compile some C and assembly.
RUN apk add --no-cache ca-certificates gcc musl-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin countersign

FROM scratch
# Without any authority the program can make no HTTP client, even one for plain HTTP. What they are used
# for is a Prometheus behind a public certificate; an authority of your own is mounted by the chart.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/countersign /countersign
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/countersign"]
CMD ["run"]
