# Bulkhead in a container: built here, run without a shell and without root.
#
#   docker build -t bulkhead .
#   docker run -p 587:587 -p 465:465 -v bulkhead-data:/var/lib/bulkhead \
#     -v ./certs:/etc/bulkhead/certs:ro -e BULKHEAD_HOSTNAME=relay.example.net bulkhead
#
# Settings are variables (BULKHEAD_SECTION__KEY) or a file mounted over
# /etc/bulkhead/bulkhead.toml. The user is 65532: it must be able to read the private key.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --bin bulkhead \
    && install -d -m 0750 /out/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/dist/bulkhead /usr/local/bin/bulkhead
COPY --from=build --chown=65532:65532 /out/data /var/lib/bulkhead
COPY config/bulkhead.toml /etc/bulkhead/bulkhead.toml
ENV BULKHEAD_CONFIG=/etc/bulkhead/bulkhead.toml \
    BULKHEAD_DATA_DIR=/var/lib/bulkhead
# Relative paths in the settings start here: certs/relay.pem, certs/relay.key.
WORKDIR /etc/bulkhead
USER 65532:65532
VOLUME ["/var/lib/bulkhead"]
EXPOSE 587 465
STOPSIGNAL SIGTERM
# /healthz on the admin address; there is no shell or curl here to ask it.
HEALTHCHECK --interval=30s --timeout=5s --retries=3 \
    CMD ["/usr/local/bin/bulkhead", "health"]
ENTRYPOINT ["/usr/local/bin/bulkhead"]
CMD ["serve"]
