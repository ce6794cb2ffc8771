FROM a
RUN <<EOF
apt-get update
apt-get install -y curl
EOF
RUN <<-'EOT' bash
	echo "$x"
	  two
	EOT
RUN python3 <<A && cat <<B
print("A")
A
text
B
CMD ["x"]
