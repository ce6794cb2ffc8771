FROM a
ADD --keep-git-dir=true --checksum=abc https://github.com/a/b.git#v1:sub /c
ADD --unpack=false --chown=1:2 git@host:a/b.git https://e/x.tgz d.tar /e/
