FROM a
RUN -- --mount=x
COPY --link -- --from=a b
