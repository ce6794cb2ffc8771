# The same application with Debian's packages in place of PyPI's. The secret is a file of apt.conf(5): where a network
# has proxies, they are given to the build and are no part of the image.
FROM debian:bookworm-slim
WORKDIR /12-factor-app
RUN --mount=type=secret,id=apt,target=/etc/apt/apt.conf.d/90build \
    apt-get update --quiet \
    && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends python3-flask \
    && rm -rf /var/lib/apt/lists/*
COPY app.py .
CMD ["python3", "app.py"]
