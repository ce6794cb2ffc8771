FROM a AS one
COPY --from=two b c
FROM a AS two
