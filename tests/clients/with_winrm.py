"""pywinrm gets an instance and a fault. Argument: the machine's id."""

import sys
import os
import urllib.parse
import uuid

import xmltodict
from winrm.protocol import Protocol

url = urllib.parse.urlsplit(os.environ["HYPERV_URL"])
protocol = Protocol(
    endpoint=f"{url.scheme}://{url.hostname}:{url.port}/wsman",
    transport=os.environ.get("HYPERV_AUTH", "basic"),
    username=url.username,
    password=os.environ["HYPERV_PASSWORD"],
    server_cert_validation="ignore",
)


def get(guid):
    request = {
        "env:Envelope": protocol._get_soap_header(
            resource_uri="http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/Msvm_ComputerSystem",
            action="http://schemas.xmlsoap.org/ws/2004/09/transfer/Get",
            message_id=uuid.uuid4(),
        )
    }
    request["env:Envelope"]["env:Header"]["w:SelectorSet"] = {
        "w:Selector": [{"@Name": "CreationClassName", "#text": "Msvm_ComputerSystem"}, {"@Name": "Name", "#text": guid}]
    }
    request["env:Envelope"]["env:Body"] = {}
    return protocol.send_message(xmltodict.unparse(request))


reply = get(sys.argv[1].upper())
text = reply.decode() if isinstance(reply, bytes) else reply
assert f">{sys.argv[1].upper()}<" in text, text
try:
    protocol.open_shell()
    raise AssertionError("a shell was opened")
except AssertionError:
    raise
except Exception as fault:  # pywinrm has a type of fault for each of its versions
    assert "500" in str(fault) or "fault" in str(type(fault)).lower() or "shell" in str(fault).lower(), fault
