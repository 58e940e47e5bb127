"""A caller's place as SIP carries it: Asterisk makes a PIDF-LO body and a Geolocation header of these variables.

They belong on the new leg before it is dialled. A trunk sends them only with `geoloc_outgoing_call_profile` set.
"""

from __future__ import annotations

from pbx.tenant import Address

_ELEMENTS = {
    "region": "A1", "city": "A3", "street": "RD", "house": "HNO", "postcode": "PC", "building": "BLD", "floor": "FLR",
    "room": "ROOM", "name": "NAM",
}


def geolocation(
    address: Address, *, country: str, language: str, number: str, device: str, domain: str | None
) -> dict[str, str]:
    """The channel variables that tell where the caller is.

    `number` is the one he shows, `device` names his handset ("acme-101"); `domain` is the PBX's own, if it has one.
    """
    variables = {
        "GEOLOC_PROFILE(id)": f"pres:{number or device}@{domain or 'pbx.invalid'}",
        "GEOLOC_PROFILE(format)": "civicAddress",
        # Without an element Asterisk writes a body that is no PIDF.
        "GEOLOC_PROFILE(pidf_element)": "device",
        "GEOLOC_PROFILE(pidf_element_id)": device,
        "GEOLOC_PROFILE(method)": "Manual",
        "GEOLOC_PROFILE(allow_routing_use)": "yes",
        "GEOLOC_PROFILE(location_info)": civic(address, country=country, language=language),
    }
    if domain:
        variables["GEOLOC_PROFILE(location_source)"] = domain
    if address.insee:
        variables["PJSIP_HEADER(add,P-Access-Network-Info)"] = f'IEEE-802.3;eth-location="{address.insee}"'
    return variables


def civic(address: Address, *, country: str, language: str) -> str:
    """An address in the words of RFC 4119 and 5139, as Asterisk takes them: country="FR",A3="Paris",..."""
    parts = {"country": str(address.country or country)}
    parts |= {element: value for key, element in _ELEMENTS.items() if (value := getattr(address, key)) is not None}
    return ",".join(f'{element}="{_plain(value)}"' for element, value in (parts | {"lang": language}).items())


def _plain(value: str) -> str:
    """A value between quotes; a bare & would vanish on Asterisk's way to XML."""
    printable = "".join(char if char.isprintable() else " " for char in value)
    return printable.replace("\\", "/").replace('"', "'").replace("&", "&amp;")
