"""Real clients that sign in by NTLM, against the small host that the test serves: python sealed.py CLIENT HOST PORT http|https.

Over http every body is sealed; over https none is. Prints nothing when all is as it should be, and a traceback otherwise.
"""
import sys
import warnings
import xml.etree.ElementTree as ET

warnings.filterwarnings("ignore")
CLIENT, HOST, PORT, SCHEME = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
USER, PASSWORD = "administrator", "Passw0rd!"
BASE = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/virtualization/v2/"
SYSTEM = BASE + "Msvm_ComputerSystem"
WEB = "3F2A9B0C-7A54-4C2E-9E5B-0D1C2B3A4F55"
NS = {"w": "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd",
      "n": "http://schemas.xmlsoap.org/ws/2004/09/enumeration",
      "p": SYSTEM}


def sealing():
    return "never" if SCHEME == "https" else "always"


def pypsrp():
    from pypsrp.exceptions import AuthenticationError, WSManFaultError
    from pypsrp.wsman import WSMan, SelectorSet

    def connect(auth, user=USER, password=PASSWORD):
        return WSMan(HOST, port=PORT, ssl=SCHEME == "https", auth=auth, username=user, password=password,
                     encryption="auto" if SCHEME == "https" else "always", cert_validation=False)

    selectors = SelectorSet()
    selectors.add_option("Name", WEB)
    for auth, user in (("negotiate", USER), ("ntlm", "LAB\\" + USER), ("negotiate", "Administrator".lower())):
        with connect(auth, user) as wsman:
            instance = wsman.get(SYSTEM, selector_set=selectors)
            assert instance.find(".//p:ElementName", NS).text == "web01"
            body = ET.Element("{%s}Enumerate" % NS["n"])
            ET.SubElement(body, "{%s}OptimizeEnumeration" % NS["w"])
            ET.SubElement(body, "{%s}MaxElements" % NS["w"]).text = "50"
            reply = wsman.enumerate(SYSTEM, body)
            assert len(reply.findall(".//p:ElementName", NS)) == 5
            call = ET.Element("{%s}RequestStateChange_INPUT" % SYSTEM)
            ET.SubElement(call, "{%s}RequestedState" % SYSTEM).text = "3"
            output = wsman.invoke(SYSTEM + "/RequestStateChange", SYSTEM, call, selector_set=selectors)
            assert output.find(".//p:ReturnValue", NS).text == "4096"
            try:
                wsman.get(BASE + "Msvm_Nothing")
                raise AssertionError("there is no such class")
            except WSManFaultError as fault:
                assert fault.code == 2150858752, fault.code
    for user, password in ((USER, "wrong"), ("nobody", PASSWORD)):
        try:
            with connect("negotiate", user, password) as wsman:
                wsman.get(SYSTEM, selector_set=selectors)
            raise AssertionError("that was let in")
        except AuthenticationError:
            pass


def pywinrm():
    import xmltodict
    from winrm.exceptions import InvalidCredentialsError, WinRMTransportError, WSManFaultError
    from winrm.protocol import Protocol

    def connect(password=PASSWORD, encryption=None):
        return Protocol(endpoint="%s://%s:%d/wsman" % (SCHEME, HOST, PORT), transport="ntlm", username=USER,
                        password=password, server_cert_validation="ignore", message_encryption=encryption or sealing())

    def get(protocol, name):
        envelope = protocol._get_soap_header(resource_uri=SYSTEM,
                                             action="http://schemas.xmlsoap.org/ws/2004/09/transfer/Get")
        envelope["env:Header"]["w:SelectorSet"] = {"w:Selector": [{"@Name": "Name", "#text": name}]}
        return protocol.send_message(xmltodict.unparse({"env:Envelope": {**envelope, "env:Body": {}}}))

    protocol = connect()
    for _ in range(3):
        assert b"<p:ElementName>web01</p:ElementName>" in get(protocol, WEB)
    try:
        get(protocol, "nope")
        raise AssertionError("there is no such machine")
    except WSManFaultError as fault:
        assert fault.wsman_fault_code == 2150858752, fault.wsman_fault_code
    try:
        get(connect(password="wrong"), WEB)
        raise AssertionError("a wrong password was let in")
    except InvalidCredentialsError:
        pass
    if SCHEME == "http":
        try:
            get(connect(encryption="never"), WEB)
            raise AssertionError("a body in clear was looked at")
        except WinRMTransportError as refused:
            assert refused.code == 500, refused.code


def binding():
    """A proof that names the TLS connection it was made on is good on that one only."""
    import base64
    import hashlib
    import http.client
    import ssl

    import spnego
    from spnego.channel_bindings import GssChannelBindings

    def sign_in(application_data):
        if SCHEME == "https":
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(HOST, PORT, context=context)
        else:
            connection = http.client.HTTPConnection(HOST, PORT)
        connection.connect()
        if callable(application_data):
            application_data = application_data(connection.sock)
        bindings = GssChannelBindings(application_data=application_data) if application_data else None
        client = spnego.client(USER, PASSWORD, hostname=HOST, service="http", protocol="negotiate",
                               channel_bindings=bindings)
        token = client.step()
        while token is not None:
            connection.request("POST", "/wsman", headers={
                "Authorization": "Negotiate " + base64.b64encode(token).decode(), "Content-Length": "0"})
            reply = connection.getresponse()
            reply.read()
            said = reply.getheader("WWW-Authenticate", "").split(",")[0].split(" ")
            token = client.step(base64.b64decode(said[1])) if len(said) == 2 and said[0] == "Negotiate" else None
        assert (reply.status == 200) == client.complete or reply.status == 401
        return reply.status

    assert sign_in(None) == 200
    assert sign_in(b"tls-server-end-point:" + hashlib.sha256(b"another").digest()) == 401
    if SCHEME == "https":
        own = lambda sock: b"tls-server-end-point:" + hashlib.sha256(sock.getpeercert(True)).digest()
        assert sign_in(own) == 200


{"pypsrp": pypsrp, "pywinrm": pywinrm, "binding": binding}[CLIENT]()
