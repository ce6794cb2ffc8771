FROM a
RUN true
RUN --mount=type=cache make
