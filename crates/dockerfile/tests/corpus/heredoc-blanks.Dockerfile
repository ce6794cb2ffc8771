FROM a
RUN cat << EOF > /x && echo $((1 << 2)) $(( 3<<x ))
text
EOF
COPY b << 'c d' <<e /f/
one
c d
two
e
