#!/usr/bin/env bash
# Builds the fuzz targets with instrumentation and runs each for so many seconds; new inputs go to
# CACHE, not to the repository.
#   run.sh SECONDS CACHE [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
seconds=$1 cache=$2
shift 2
host=$(rustc --print host-tuple)
export CARGO_TARGET_DIR=$cache/fuzz-target
# What `cargo fuzz` passes, but for the sanitizers, which need a nightly compiler; this needs none.
# With --target, build scripts and macros are left alone.
RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --release --locked --target "$host"
if [ $# = 0 ]; then
    mapfile -t targets < <(ls corpus)
else
    targets=("$@")
fi
for target in "${targets[@]}"; do
    found=$cache/fuzz/$target
    mkdir -p "$found"
    echo "== $target, $seconds s"
    "$CARGO_TARGET_DIR/$host/release/$target" "$found" "corpus/$target" \
        -max_total_time="$seconds" -rss_limit_mb=512 -timeout=10 -max_len=16384 \
        -artifact_prefix="$cache/fuzz/$target-" -print_final_stats=1 -verbosity=0
done
