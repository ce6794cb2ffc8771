FROM a
ENV name=world
COPY <<EOF <<-"raw" /etc/
hello $name, it's \$5
EOF
	kept $name
raw
COPY --chmod=755 <<script.sh b /usr/bin/
#!/bin/sh
# no comment of the Dockerfile's
RUN nothing

script.sh
ADD <<x /y
x
