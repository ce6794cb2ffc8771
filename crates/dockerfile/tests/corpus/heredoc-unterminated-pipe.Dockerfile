FROM a
RUN cat <<EOF|sh
echo
EOF
