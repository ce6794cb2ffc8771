FROM a
RUN --mount=type=bind,from=b,source=/c,target=/d,rw \
    --mount=type=cache,id=e,target=/f,sharing=private,mode=0755,uid=1,gid=2,from=g,source=h \
    --mount=type=tmpfs,target=/i,size=64m \
    --mount=type=secret,id=j,env=K,required=true \
    --mount=type=secret,src=l,dst=/m,mode=0440 \
    --mount=type=ssh,id=n,required \
    --network=none --security=sandbox \
    true
ARG target=/x
RUN --mount=target=${target},readonly=false "--mount=type=tmpfs,target=/a b" --network=host true
