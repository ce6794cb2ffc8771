# In the root, while it is made: the sources of both suites, their helper programs, built from Debian's packages.
set -eu
mkdir -p /src
cd /src
apt-get -q update
# apt checks what it fetches against the archive's signed index (apt-secure(8)).
apt-get -q source --download-only runc
# Only the tests of this one are wanted, and they are the author's own.
apt-get -q source --tar-only crun
apt-get -q --yes --no-install-recommends build-dep runc
dpkg-source --no-check --extract runc_*.dsc runc
mkdir crun
tar -xf crun_*.orig.tar.* -C crun --strip-components=1

# What configure would find on Debian, as far as the suite's own init asks for it.
cd /src/crun
printf '#define HAVE_%s 1\n' SECCOMP LINUX_IOPRIO_H ERROR_H >config.h
gcc -I. -static -o tests/init tests/init.c -lseccomp

# Debian's packages of Go are trees of sources below /usr/share/gocode (dh-make-golang's way).
export GO111MODULE=off GOPATH=/src/go:/usr/share/gocode GOCACHE=/src/go/cache CGO_ENABLED=1
mkdir -p /src/go/src/github.com/opencontainers
ln -s /src/runc /src/go/src/github.com/opencontainers/runc
cd /src/go/src/github.com/opencontainers/runc
for program in recvtty sd-helper seccompagent; do
    go build -tags seccomp -o contrib/cmd/$program/$program ./contrib/cmd/$program
done
rm -rf /src/go/cache

# The suite's images would come from the network; ours are made of Debian's packages.
cat >tests/integration/get-images.sh <<'SCRIPT'
#!/bin/sh
echo BUSYBOX_IMAGE=/src/images/busybox.tar
echo DEBIAN_IMAGE=/src/images/debian.tar
SCRIPT
mkdir -p /src/images /cell
apt-get clean
rm -rf /var/lib/apt/lists/*
