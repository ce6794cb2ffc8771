FROM a
FROM b
COPY --from=0 c d
COPY --from=2 e f
