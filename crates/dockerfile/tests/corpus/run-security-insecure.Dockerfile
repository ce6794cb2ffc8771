FROM a
RUN --security=insecure mount
