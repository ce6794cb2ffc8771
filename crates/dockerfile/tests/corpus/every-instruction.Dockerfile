ARG VERSION=1
FROM debian:${VERSION} AS all
LABEL a=1 "b c"="d e" f=$VERSION
LABEL legacy the rest
MAINTAINER Somebody <some@body>
ENV a=1 b="2 3" c=4\ 5
ENV d 6   7
ARG x y=1 z="2 3"
ADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 https://example.org/a.tar /a/
COPY ["a b", "c d", "/e f/"]
RUN echo hi && \
    echo there
RUN ["/bin/true", "-x"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
CMD echo
ENTRYPOINT ["a"]
EXPOSE 80 443/tcp 53/udp 8000-8010
HEALTHCHECK NONE
ONBUILD COPY . /src
ONBUILD RUN make
STOPSIGNAL SIGQUIT
USER me:us
VOLUME /a /b
VOLUME ["/c", "/d e"]
WORKDIR /a b/c
