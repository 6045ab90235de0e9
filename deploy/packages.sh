# Sourced by the scripts that need Debian packages.
CLUSTER_PACKAGES=(etcd-server etcd-client containerd runc containernetworking-plugins iptables conntrack iproute2 openssl
    protobuf-compiler libprotobuf-dev gcc libc6-dev)
TEST_PACKAGES=(debootstrap bind9-dnsutils curl dbus-daemon dnsmasq-base procps python3 systemd)

# Installs the packages that are missing, and kubectl where there is none.
install_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    command -v kubectl >/dev/null || missing+=(kubernetes-client)
    [ ${#missing[@]} -eq 0 ] && return
    echo "Installing ${missing[*]} ..."
    # A service of the distribution would take the ports of the cluster's own.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    rm -f /usr/sbin/policy-rc.d
}
