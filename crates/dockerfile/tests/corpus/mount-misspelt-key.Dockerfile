FROM a
RUN --mount=type=cache,tarquet=/x true
