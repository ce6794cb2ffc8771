FROM a
ARG port=http
EXPOSE 80 $port
