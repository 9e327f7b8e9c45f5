# The proxy alone in an empty image: a static binary, no shell, no user
# database, no files to write. It needs no capability: every port is above 1024.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -buildid= -X main.version=$VERSION" -o /out/waypoint ./cmd/waypoint

FROM scratch
COPY --from=build /out/waypoint /waypoint
USER 65532:65532
ENTRYPOINT ["/waypoint"]
CMD ["serve", "--config", "/etc/waypoint"]
