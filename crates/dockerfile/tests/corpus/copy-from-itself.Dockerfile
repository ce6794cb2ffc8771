FROM a AS one
COPY --from=ONE b c
