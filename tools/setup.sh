#!/bin/bash
# Installs the Debian packages that the named package groups need and this machine lacks.
#
#   tools/setup.sh base libvirt
#
# Exit status: 0 everything is there, 1 an installation failed, 2 wrong use, 3 something is
# missing and we may not install it (not root, or not Debian); the message says what.
#
# Called by tools/test.sh before the groups of tests that need the packages. No daemon is
# started by an installation: the tests start their own, with their own folders.
set -euo pipefail

# To add a package group: one line. Name, then Debian package names.
package_groups() {
	cat <<'TABLE'
base    | ca-certificates git make
libvirt | libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils qemu-block-extra iproute2 util-linux ethtool xz-utils genisoimage
network | iproute2 nftables ethtool iputils-ping util-linux knot knot-dnsutils
monitoring | prometheus prometheus-alertmanager
systemd | systemd
TABLE
}

# How long to wait for another apt or dpkg on the same machine, in seconds: longer than one
# installation of the largest group takes here.
readonly LOCK_TIMEOUT=300

say() { printf 'setup: %s\n' "$*" >&2; }

packages_of() { # group
	package_groups | awk -F'|' -v group="$1" '
		{ name = $1; gsub(/[ \t]/, "", name) }
		name == group { print $2; found = 1 }
		END { exit !found }'
}

is_installed() { # package
	local status
	status=$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) && [[ $status == installed ]]
}

apt() { # apt-get arguments
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o "DPkg::Lock::Timeout=$LOCK_TIMEOUT" \
		-o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

install_quietly() { # packages
	apt install -y --no-install-recommends "$@" >/dev/null
}

# keep_daemons_down makes invoke-rc.d refuse to start anything while we install, unless the
# machine has such a policy already.
keep_daemons_down() {
	[[ -e /usr/sbin/policy-rc.d ]] && return
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
}

# install_missing knows one trap: upgrading systemd empties the folder apt unpacks the other
# packages from, so that the same call fails with "cannot access archive". Hence systemd goes
# first in a call of its own, and a call that failed all the same is repaired and repeated once.
install_missing() { # packages
	apt update
	if apt install -s --no-install-recommends "$@" | grep -q '^Inst systemd '; then
		install_quietly systemd || apt install -y --fix-broken >/dev/null
	fi
	install_quietly "$@" && return
	say "apt-get failed; repairing and trying once more"
	apt install -y --fix-broken >/dev/null
	install_quietly "$@"
}

main() {
	local group names package missing=()
	for group in "$@"; do
		names=$(packages_of "$group") || { say "unknown package group $group"; exit 2; }
		for package in $names; do
			is_installed "$package" || missing+=("$package")
		done
	done
	((${#missing[@]})) || return 0
	if ! command -v apt-get >/dev/null; then
		say "not a Debian machine; install what these Debian packages contain: ${missing[*]}"
		exit 3
	fi
	if ((EUID != 0)); then
		say "not root; please run: sudo apt-get install --no-install-recommends ${missing[*]}"
		exit 3
	fi
	say "installing ${missing[*]}"
	keep_daemons_down
	install_missing "${missing[@]}"
}

main "$@"
