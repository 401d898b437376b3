"""Which network addresses a picture may be fetched from, however they are spelled.

A catalogue is written by others. A name in it must not lead a worker to the machines around it, so an address counts
as public only if no registry entry says otherwise. The lists are ours: Python's `is_global` differs between releases.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6052 (NAT64); WHATWG URL, "IPv4 parser".
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

PRIVATE = {
    ip_network(text): kind
    for text, kind in {
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by a provider's customers",
        "127.0.0.0/8": "loopback",
        "172.16.0.0/12": "private",
        "192.168.0.0/16": "private",
        "::1/128": "loopback",
        "fc00::/7": "private",
    }.items()
}
"""Networks that an operator may allow by naming the host."""

FORBIDDEN = {
    ip_network(text): kind
    for text, kind in {
        "0.0.0.0/8": "unspecified",
        "100.100.100.200/32": "a metadata service",  # Alibaba Cloud
        "168.63.129.16/32": "a metadata service",  # Azure; a public address otherwise
        "169.254.0.0/16": "link-local",  # metadata services of AWS, Azure, Google and others
        "192.0.0.0/24": "reserved",  # Oracle Cloud's metadata among them
        "192.0.2.0/24": "reserved for documentation",
        "192.88.99.0/24": "a 6to4 relay",
        "198.18.0.0/15": "reserved for benchmarks",
        "198.51.100.0/24": "reserved for documentation",
        "203.0.113.0/24": "reserved for documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
        "2001::/23": "reserved for protocols",  # Teredo among them
        "2001:db8::/32": "reserved for documentation",
        "2002::/16": "6to4",
        "3fff::/20": "reserved for documentation",
        "fd00:ec2::254/128": "a metadata service",  # AWS
        "fd20:ce::254/128": "a metadata service",  # Google Cloud
    }.items()
}
"""Networks that no picture comes from."""

GLOBAL_UNICAST = ip_network("2000::/3")
"""All of IPv6 that is given out to networks (RFC 4291, section 2.4); mapped, link-local and multicast lie outside."""
NAT64 = ip_network("64:ff9b::/96")
"""Where a network without IPv4 shows the addresses of IPv4: the last 32 bits are one."""
NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


def why_refused(address: str, *, private_is_allowed: bool) -> str | None:
    """Say what is wrong with an address, or None.

    Args:
        address: numeric, as a resolver gives it.
        private_is_allowed: whether private and loopback addresses are fine too; the others of FORBIDDEN never are.
    """
    found: IPv4Address | IPv6Address = ip_address(address)
    if found in NAT64:
        found = IPv4Address(int(found) & 0xFFFFFFFF)
    for network, kind in FORBIDDEN.items():
        if found in network:
            return kind
    for network, kind in PRIVATE.items():
        if found in network:
            return None if private_is_allowed else kind
    return "not a public address" if found.version == 6 and found not in GLOBAL_UNICAST else None


def canonical_address(host: str) -> str | None:
    """Return the address that a URL's host spells, or None where it is a name.

    Args:
        host: lower-case, without brackets unless it is IPv6 in brackets.

    Returns:
        The usual spelling: `127.0.0.1` of `0x7f.1`, `2130706433` and `0177.0.0.1`, as browsers read them.

    Raises:
        ValueError: it ends in a number or has brackets but is no address.
    """
    if host.startswith("["):
        if not host.endswith("]") or "%" in host:
            raise ValueError(f"{host} is not an IPv6 address")
        return str(IPv6Address(host[1:-1]))
    parts = host.removesuffix(".").split(".")
    if not NUMBER.fullmatch(parts[-1]):
        return None
    numbers = [_number(part) for part in parts]
    *leading, last = numbers
    if len(numbers) > 4 or any(number > 255 for number in leading) or last >= 256 ** (5 - len(numbers)):
        raise ValueError(f"{host} is not an IPv4 address")
    return str(IPv4Address(last + sum(number << 8 * (3 - place) for place, number in enumerate(leading))))


def _number(part: str) -> int:
    if not NUMBER.fullmatch(part):
        raise ValueError(f"{part!r} is not a part of an IPv4 address")
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") and len(part) > 1 else 10)
