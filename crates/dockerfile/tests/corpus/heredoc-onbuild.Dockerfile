FROM a
ONBUILD RUN <<E
echo $x
E
ONBUILD COPY <<'F' /g
	g
F
RUN true
