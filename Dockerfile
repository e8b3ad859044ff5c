# docker build --tag dockeraudit .        (BASE: any image with python3, 3.9 or newer, and a shell)
ARG BASE=python:3-alpine

FROM ${BASE} AS stitch
COPY dockeraudit.py patterns.py /source/
COPY _dockeraudit/ /source/_dockeraudit/
COPY deploy/stitch.py /source/deploy/
RUN mkdir -p /image/opt/dockeraudit /image/var/log/dockeraudit \
 && python3 /source/deploy/stitch.py > /image/opt/dockeraudit/dockeraudit.py \
 && chmod 0755 /image/opt/dockeraudit/dockeraudit.py \
 && python3 -m compileall -q /image/opt/dockeraudit \
 && mkdir -p /image/usr/local/bin \
 && ln -s /opt/dockeraudit/dockeraudit.py /image/usr/local/bin/dockeraudit \
 && chown 65534:65534 /image/var/log/dockeraudit && chmod 0700 /image/var/log/dockeraudit

FROM ${BASE}
COPY --from=stitch /image/ /
# It does not run as root: Compose's group_add gives it the engine's socket. With the policy `auto`,
# the variables of Tecnativa's and linuxserver's proxies count as soon as one is set; without any,
# everything passes and is audited.
ENV DOCKERAUDIT_LISTEN=tcp://[::]:2375 \
    DOCKERAUDIT_AUDIT_LOG=/var/log/dockeraudit/audit.log \
    DOCKERAUDIT_POLICY=auto
WORKDIR /opt/dockeraudit
USER 65534:65534
VOLUME /var/log/dockeraudit
EXPOSE 2375
HEALTHCHECK --interval=30s --timeout=6s --start-period=5s \
  CMD ["python3", "-m", "dockeraudit", "healthcheck"]
ENTRYPOINT ["python3", "-m", "dockeraudit"]
