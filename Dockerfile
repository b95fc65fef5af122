# The gateway in a container: the program, its configuration and its licence; no shell, no package manager, not root.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
# Cargo wants to see every target that Cargo.toml names, though only the program is built.
COPY benches benches
COPY config config
COPY migrations migrations
COPY src src
RUN cargo build --profile dist --locked --bin tollgate \
    && install -D target/dist/tollgate /image/usr/local/bin/tollgate \
    && install -d /image/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr/local/bin/tollgate /usr/local/bin/tollgate
# A volume that is new takes the owner of the folder it covers.
COPY --from=build --chown=65532:65532 /image/data /data
COPY config/tollgate.toml /etc/tollgate/tollgate.toml
COPY LICENSE /usr/share/doc/tollgate/LICENSE
USER 65532:65532
ENV TOLLGATE_CONFIG=/etc/tollgate/tollgate.toml \
    TOLLGATE_LISTEN=0.0.0.0:8080 \
    TOLLGATE_ADMIN_LISTEN=0.0.0.0:8081 \
    TOLLGATE_DATA_DIR=/data
EXPOSE 8080 8081
VOLUME /data
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/usr/local/bin/tollgate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tollgate"]
