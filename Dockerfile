# syntax=docker/dockerfile:1
# The image of operator and router: two static binaries, no shell, an unprivileged user.
# `make image` builds it; without a docker daemon it packs the same binaries from a local build.

FROM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
# The image has the pinned toolchain already; rust-toolchain.toml would fetch lint tools that are not needed here.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_TARGET_DIR=/target
COPY . .
# --target is given although it is the host's: without it, crt-static would also be asked of procedural macros,
# which have to be dynamic libraries.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target,id=target-$TARGETARCH \
    case "$TARGETARCH" in amd64) arch=x86_64 ;; arm64) arch=aarch64 ;; *) echo "no such architecture: $TARGETARCH" >&2; exit 1 ;; esac \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$arch-unknown-linux-gnu" \
       --package searchcell-operator --bin searchcell --package searchcell-router --bin router \
    && cp "/target/$arch-unknown-linux-gnu/release/searchcell" "/target/$arch-unknown-linux-gnu/release/router" /

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="searchcell-operator" \
      org.opencontainers.image.description="Kubernetes operator for cells of small Elasticsearch clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /searchcell /router /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/searchcell"]
