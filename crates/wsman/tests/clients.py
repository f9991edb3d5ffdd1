"""Real clients against the small host that the test serves: python clients.py CLIENT HOST PORT http|https.

Prints nothing when all is as it should be, and a traceback otherwise.
"""
import sys
import warnings
import xml.etree.ElementTree as ET

warnings.filterwarnings("ignore")
CLIENT, HOST, PORT, SCHEME = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
USER, PASSWORD = "administrator", "Passw0rd!"
BASE = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/"
SYSTEM, SERVICE = BASE + "Msvm_ComputerSystem", BASE + "Msvm_VirtualSystemManagementService"
WEB = "3F2A9B0C-7A54-4C2E-9E5B-0D1C2B3A4F55"
NS = {"w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
      "n": "http://schemas.xmlsoap.org/ws/2004/09/enumeration",
      "p": SYSTEM}
WQL = "http://schemas.microsoft.com/wbem/wsman/1/WQL"


def tag(prefix, name):
    return "{%s}%s" % (NS[prefix], name)


def pypsrp():
    from pypsrp.exceptions import AuthenticationError, WSManFaultError
    from pypsrp.wsman import WSMan, SelectorSet

    def connect(password):
        return WSMan(HOST, port=PORT, ssl=SCHEME == "https", auth="basic", username=USER, password=password,
                     encryption="auto" if SCHEME == "https" else "never", cert_validation=False)

    with connect(PASSWORD) as wsman:
        selectors = SelectorSet()
        selectors.add_option("Name", WEB.lower())
        instance = wsman.get(SYSTEM, selector_set=selectors)
        assert instance.find(".//p:ElementName", NS).text == "web01"

        # A query, optimised, and the rest by pulling.
        body = ET.Element(tag("n", "Enumerate"))
        ET.SubElement(body, tag("w", "OptimizeEnumeration"))
        ET.SubElement(body, tag("w", "MaxElements")).text = "2"
        ET.SubElement(body, tag("w", "Filter"), Dialect=WQL).text = \
            "SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine' AND Name != __SERVER"
        reply = wsman.enumerate(BASE + "*", body)
        names = [e.text for e in reply.iterfind(".//p:ElementName", NS)]
        while reply.find(".//w:EndOfSequence", NS) is None and reply.find(".//n:EndOfSequence", NS) is None:
            pull = ET.Element(tag("n", "Pull"))
            context = reply.find(".//n:EnumerationContext", NS).text
            ET.SubElement(pull, tag("n", "EnumerationContext")).text = context
            ET.SubElement(pull, tag("n", "MaxElements")).text = "2"
            reply = wsman.pull(BASE + "*", pull)
            names += [e.text for e in reply.iterfind(".//p:ElementName", NS)]
        assert names == ["web01", "vm1", "vm2", "vm3", "vm4"], names

        call = ET.Element("{%s}RequestStateChange_INPUT" % SYSTEM)
        ET.SubElement(call, "{%s}RequestedState" % SYSTEM).text = "3"
        output = wsman.invoke(SYSTEM + "/RequestStateChange", SYSTEM, call, selector_set=selectors)
        assert output.find(".//p:ReturnValue", NS).text == "4096"
        job = output.find(".//p:Job//w:Selector[@Name='InstanceID']", NS)
        assert job.text == "job-1"

        wsman.update_max_payload_size()
        try:
            wsman.get(BASE + "Msvm_Nothing")
            raise AssertionError("there is no such class")
        except WSManFaultError as fault:
            assert fault.code == 2150858752 and "Msvm_Nothing" in str(fault), (fault.code, str(fault))
    try:
        with connect("wrong") as wsman:
            wsman.get(SYSTEM, selector_set=selectors)
        raise AssertionError("a wrong password was let in")
    except AuthenticationError:
        pass


def pywinrm():
    import xmltodict
    from winrm.exceptions import InvalidCredentialsError, WSManFaultError
    from winrm.protocol import Protocol

    def connect(password):
        transport = "ssl" if SCHEME == "https" else "plaintext"
        return Protocol(endpoint="%s://%s:%d/wsman" % (SCHEME, HOST, PORT), transport=transport, username=USER,
                        password=password, server_cert_validation="ignore", message_encryption="never")

    def message(resource, action, selectors=(), body=None):
        envelope = protocol._get_soap_header(resource_uri=resource, action=action)
        if selectors:
            envelope["env:Header"]["w:SelectorSet"] = \
                {"w:Selector": [{"@Name": k, "#text": v} for k, v in selectors]}
        return xmltodict.unparse({"env:Envelope": {**envelope, "env:Body": body or {}}})

    protocol = connect(PASSWORD)
    get = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get"
    reply = protocol.send_message(message(SYSTEM, get, [("Name", WEB)]))
    assert b"<p:ElementName>web01</p:ElementName>" in reply
    call = {"p:RequestStateChange_INPUT": {"@xmlns:p": SYSTEM, "p:RequestedState": "2"}}
    reply = protocol.send_message(message(SYSTEM, SYSTEM + "/RequestStateChange", [("Name", WEB)], call))
    assert b"<p:ReturnValue>4096</p:ReturnValue>" in reply
    for what, code in ((lambda: protocol.send_message(message(SYSTEM, get, [("Name", "nope")])), 2150858752),
                       (protocol.open_shell, 2150858818)):
        try:
            what()
            raise AssertionError("that was to be refused")
        except WSManFaultError as fault:
            assert fault.wsman_fault_code == code, (fault.wsman_fault_code, str(fault))
    try:
        connect("wrong").open_shell()
        raise AssertionError("a wrong password was let in")
    except InvalidCredentialsError:
        pass


def dracclient():
    import urllib3
    urllib3.disable_warnings()
    from dracclient.wsman import Client
    client = Client(HOST, USER, PASSWORD, port=PORT, protocol=SCHEME)
    reply = client.enumerate(SYSTEM)
    assert len(reply.findall(".//p:ElementName", NS)) == 5
    reply = client.enumerate(BASE + "*", filter_query="select ElementName from Msvm_ComputerSystem where EnabledState = 2")
    assert [e.text for e in reply.findall(".//p:ElementName", NS)] == ["web01", "vm1"]
    # One after another: the client pulls until the end.
    reply = client.enumerate(SYSTEM, optimization=True, max_elems=2)
    assert len(reply.findall(".//p:ElementName", NS)) == 5
    reply = client.invoke(SERVICE, "GetSummaryInformation", {"Name": "vmms"}, {"RequestedInformation": ["0", "1"]})
    assert reply.find(".//{%s}ReturnValue" % SERVICE).text == "0"


{"pypsrp": pypsrp, "pywinrm": pywinrm, "dracclient": dracclient}[CLIENT]()
