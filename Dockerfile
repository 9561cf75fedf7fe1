# docker build --build-arg VERSION=$(git describe --tags --always) -t keygate .
# docker run --read-only -p 8080:8080 -v keygate:/data keygate

FROM golang:1.26 AS build
WORKDIR /src
# Dependencies change less often than code and are kept in a layer of their own.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X keygate/internal/cli.version=${VERSION}" -o /out/keygate . \
    && mkdir /out/data

FROM scratch
ARG VERSION=unknown
LABEL org.opencontainers.image.title="keygate" \
      org.opencontainers.image.description="A reverse proxy that enforces API keys: identity, permissions, limits" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# For upstreams, Redis and login providers over TLS; time zones are in the binary.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/keygate /keygate
# A new volume takes its owner from here. No user is named in this image, so it
# is a number, which Kubernetes' runAsNonRoot wants too.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
# Only /data is written, temporary files included, so the root may be read-only.
ENV KEYGATE_DATA_DIR=/data TMPDIR=/data
VOLUME /data
# The proxy, and the management API with dashboard, metrics and health. The
# latter listens on the container's own loopback until KEYGATE_ADMIN_ADDR opens
# it, which wants TLS.
EXPOSE 8080 9090
HEALTHCHECK CMD ["/keygate", "healthcheck"]
ENTRYPOINT ["/keygate"]
