ARG b=c
FROM a
COPY --from=$b d e
