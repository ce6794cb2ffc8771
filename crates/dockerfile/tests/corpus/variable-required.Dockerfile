FROM a
ARG version
LABEL version="${version:?pass --build-arg version=…}"
