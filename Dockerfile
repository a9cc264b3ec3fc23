# The images of the operator and of the plugin: one static program, its bill of materials and the public certificate
# authorities, nothing else. How to pin their base and to build the same bytes again: docs/release.md.
#
#   docker build --tag registry.example.com/countersign:0.1.0 .
#   docker build --tag registry.example.com/kubectl-countersign:0.1.0 --target plugin .

# The host of this image is musl, so what cargo builds here is static, on amd64 and arm64 alike.
ARG RUST_IMAGE=rust:1.95-alpine
FROM ${RUST_IMAGE} AS build
# mimalloc, psm and ring, three dependencies, compile some C and assembly.
RUN apk add --no-cache ca-certificates gcc musl-dev
# The program then carries the list of its crates; scanners of images read it.
RUN cargo install --locked cargo-auditable@0.7.7 auditable2cdx@0.1.0
WORKDIR /src
COPY . .
RUN cargo auditable build --release --locked --bin countersign \
    && auditable2cdx target/release/countersign > target/release/countersign.cdx.json

FROM build AS build-plugin
RUN cargo auditable build --release --locked --package countersign-kubectl --bins \
    && auditable2cdx target/release/kubectl-countersign > target/release/kubectl-countersign.cdx.json

FROM scratch AS plugin
COPY --from=build-plugin /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build-plugin /src/target/release/kubectl-countersign.cdx.json /kubectl-countersign.cdx.json
COPY --from=build-plugin /src/target/release/kubectl-countersign /kubectl-countersign
USER 65532:65532
ENTRYPOINT ["/kubectl-countersign"]

# The last one is built if no target is named.
FROM scratch AS operator
# Without any authority the program can make no HTTP client, even one for plain HTTP. What they are used
# for is a Prometheus behind a public certificate; an authority of your own is mounted by the chart.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/countersign.cdx.json /countersign.cdx.json
COPY --from=build /src/target/release/countersign /countersign
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/countersign"]
CMD ["run"]
