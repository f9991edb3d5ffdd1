"""What the examples need of Hyper-V's API over WS-Management: get, query, walk, call, wait for a job."""

import contextlib
import os
import time
import urllib.parse
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from pypsrp.exceptions import WSManFaultError
from pypsrp.wsman import NAMESPACES, SelectorSet, WSMan, WSManAction

NAMESPACE = "root/virtualization/v2"
URI = "http://schemas.microsoft.com/wbem/wsman/1/wmi/"
WQL = "http://schemas.microsoft.com/wbem/wsman/1/WQL"
XSI_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
ENUMERATION = NAMESPACES["wsen"]
MANAGEMENT = NAMESPACES["wsman"]
ADDRESSING = NAMESPACES["wsa"]
EVENTING = "http://schemas.xmlsoap.org/ws/2004/08/eventing"
PULL_MODE = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull"
TIMED_OUT = 2150858793

JOB_STARTED = 4096
JOB_DONE = {7: "completed", 8: "terminated", 9: "killed", 10: "exception", 32768: "completed with warnings"}


class Refused(Exception):
    """A method's return value says no."""

    def __init__(self, method, code):
        super().__init__(f"{method} returned {code}")
        self.code = code


class Reference:
    """An endpoint reference: where an instance is."""

    def __init__(self, uri, selectors):
        self.uri, self.selectors = uri, selectors

    @property
    def class_name(self):
        return self.uri.rsplit("/", 1)[-1]

    def path(self):
        """As WMI writes it, for ASSOCIATORS OF and for references inside strings."""
        keys = ",".join(f"{key}={_quoted(value)}" for key, value in self.selectors.items() if not key.startswith("__"))
        return f"{self.class_name}.{keys}"

    @staticmethod
    def read(element):
        selectors = element.iter(f"{{{MANAGEMENT}}}Selector")
        uri = next(element.iter(f"{{{MANAGEMENT}}}ResourceURI")).text
        return Reference(uri, {selector.get("Name"): selector.text or "" for selector in selectors})

    def write(self, parent):
        ET.SubElement(parent, f"{{{ADDRESSING}}}Address").text = (
            "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous"
        )
        parameters = ET.SubElement(parent, f"{{{ADDRESSING}}}ReferenceParameters")
        ET.SubElement(parameters, f"{{{MANAGEMENT}}}ResourceURI").text = self.uri
        selectors = ET.SubElement(parameters, f"{{{MANAGEMENT}}}SelectorSet")
        for name, value in self.selectors.items():
            ET.SubElement(selectors, f"{{{MANAGEMENT}}}Selector", Name=name).text = value


def _quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Instance(dict):
    """Properties by name: text, a list of texts, a Reference, or None."""

    def __init__(self, element):
        super().__init__()
        self.uri, self.class_name = element.tag[1:].split("}")
        for child in element:
            name, value = child.tag.split("}")[-1], _value(child)
            if name in self:
                before = self[name] if isinstance(self[name], list) else [self[name]]
                value = [*before, value]
            self[name] = value


def _value(element):
    if element.get(XSI_NIL) in ("true", "1"):
        return None
    if element.find(f".//{{{MANAGEMENT}}}SelectorSet") is not None:
        return Reference.read(element)
    inner = list(element)
    if inner and element.get(XSI_TYPE):
        return Instance(element)
    return inner[0].text if inner else element.text or ""


def embedded(class_name, properties):
    """An instance as the text that methods take (CIM DTD 2.0)."""
    inner = ""
    for name, value in properties.items():
        if isinstance(value, (list, tuple)):
            values = "".join(f"<VALUE>{escape(str(one))}</VALUE>" for one in value)
            inner += f"<PROPERTY.ARRAY NAME={quoteattr(name)} TYPE=\"string\"><VALUE.ARRAY>{values}</VALUE.ARRAY></PROPERTY.ARRAY>"
        elif value is not None:
            kind = {bool: "boolean", int: "uint32"}.get(type(value), "string")
            text = str(value).upper() if isinstance(value, bool) else str(value)
            inner += f"<PROPERTY NAME={quoteattr(name)} TYPE=\"{kind}\"><VALUE>{escape(text)}</VALUE></PROPERTY>"
    return f"<INSTANCE CLASSNAME={quoteattr(class_name)}>{inner}</INSTANCE>"


class Hyperv:
    """A host, through one of its namespaces."""

    def __init__(self, url=None, password=None, namespace=NAMESPACE):
        self.namespace = namespace
        url = urllib.parse.urlsplit(url or os.environ["HYPERV_URL"])
        secure = url.scheme == "https"
        auth = os.environ.get("HYPERV_AUTH", "basic")
        self.wsman = WSMan(
            url.hostname,
            port=url.port or (5986 if secure else 5985),
            username=urllib.parse.unquote(url.username or "administrator"),
            password=password or os.environ.get("HYPERV_PASSWORD", ""),
            ssl=secure,
            auth=auth,
            cert_validation=not os.environ.get("HYPERV_INSECURE"),
            # Negotiate without TLS seals every message; Basic cannot.
            encryption="never" if auth == "basic" else "auto",
        )

    def get(self, class_name, namespace=None, **keys):
        return self.fetch(Reference(f"{URI}{namespace or self.namespace}/{class_name}", keys))

    def fetch(self, reference):
        reply = self.wsman.get(reference.uri, selector_set=_selectors(reference))
        return Instance(reply[0])

    def query(self, wql, namespace=None):
        """Instances that a WQL query finds, ASSOCIATORS OF and REFERENCES OF included."""
        return [Instance(item) for item in self._items(wql, namespace)]

    def find(self, wql, namespace=None):
        """References to the instances that a WQL query finds."""
        return [Reference.read(item) for item in self._items(wql, namespace, "EnumerateEPR")]

    def _items(self, wql, namespace, mode=None):
        uri = f"{URI}{namespace or self.namespace}/*"
        ask = ET.Element(f"{{{ENUMERATION}}}Enumerate")
        ET.SubElement(ask, f"{{{MANAGEMENT}}}OptimizeEnumeration")
        ET.SubElement(ask, f"{{{MANAGEMENT}}}MaxElements").text = "100"
        if mode:
            ET.SubElement(ask, f"{{{MANAGEMENT}}}EnumerationMode").text = mode
        ET.SubElement(ask, f"{{{MANAGEMENT}}}Filter", Dialect=WQL).text = wql
        reply = self.wsman.enumerate(uri, ask)
        while True:
            for items in (f"{{{MANAGEMENT}}}Items", f"{{{ENUMERATION}}}Items"):
                for found in reply.iter(items):
                    yield from found
            ended = [*reply.iter(f"{{{MANAGEMENT}}}EndOfSequence"), *reply.iter(f"{{{ENUMERATION}}}EndOfSequence")]
            context = next(reply.iter(f"{{{ENUMERATION}}}EnumerationContext"), None)
            if ended or context is None or not context.text:
                return
            pull = ET.Element(f"{{{ENUMERATION}}}Pull")
            ET.SubElement(pull, f"{{{ENUMERATION}}}EnumerationContext").text = context.text
            ET.SubElement(pull, f"{{{ENUMERATION}}}MaxElements").text = "100"
            reply = self.wsman.pull(uri, pull)

    @contextlib.contextmanager
    def subscribed(self, wql, namespace=NAMESPACE):
        """Events that a WQL query means, as an iterator that waits for the next."""
        uri = f"{URI}{namespace}/*"
        ask = ET.Element(f"{{{EVENTING}}}Subscribe")
        ET.SubElement(ask, f"{{{EVENTING}}}Delivery", Mode=PULL_MODE)
        ET.SubElement(ask, f"{{{MANAGEMENT}}}Filter", Dialect=WQL).text = wql
        reply = self.wsman.invoke(f"{EVENTING}/Subscribe", uri, ask)
        context = next(reply.iter(f"{{{ENUMERATION}}}EnumerationContext")).text

        def events():
            while True:
                try:
                    reply = self.wsman.pull(uri, _with_context("Pull", context))
                except WSManFaultError as fault:
                    # Nothing happened for a while.
                    if fault.code != TIMED_OUT:
                        raise
                    continue
                for items in reply.iter(f"{{{ENUMERATION}}}Items"):
                    yield from (Instance(item) for item in items)

        try:
            yield events()
        finally:
            self.wsman.invoke(f"{ENUMERATION}/Release", uri, _with_context("Release", context))

    def call(self, reference, method, expected=(0, JOB_STARTED), **parameters):
        """Calls a method; output parameters by name. Refused when it returns something else than expected."""
        body = ET.Element(f"{{{reference.uri}}}{method}_INPUT")
        for name, value in parameters.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if one is None:
                    continue
                element = ET.SubElement(body, f"{{{reference.uri}}}{name}")
                if isinstance(one, Reference):
                    one.write(element)
                else:
                    element.text = str(one).lower() if isinstance(one, bool) else str(one)
        reply = self.wsman.invoke(f"{reference.uri}/{method}", reference.uri, body, selector_set=_selectors(reference))
        output = Instance(reply.find("s:Body", NAMESPACES)[0])
        code = int(output["ReturnValue"])
        if code not in expected:
            raise Refused(method, code)
        return output

    def only(self, class_name, where="", namespace=None):
        """A reference to the one instance there must be."""
        found = self.find(f"SELECT * FROM {class_name} {where}".strip(), namespace)
        if len(found) != 1:
            raise LookupError(f"{len(found)} instances of {class_name} {where}")
        return found[0]

    def machine(self, name):
        """A virtual machine by its display name."""
        return self.only("Msvm_ComputerSystem", f"WHERE ElementName={_quoted(name)}")

    def related(self, reference, result, association):
        """References to what is associated with an instance."""
        return self.find(f"ASSOCIATORS OF {{{reference.path()}}} WHERE AssocClass={association} ResultClass={result}")

    def wait(self, output, tell=lambda percent: None, every=0.2):
        """Waits for the job that a method started, if it started one. The job as it ended; raises what it says of errors."""
        reference = output.get("Job")
        if reference is None:
            return None
        try:
            while True:
                job = self.fetch(reference)
                tell(int(job["PercentComplete"] or 0))
                if int(job["JobState"]) in JOB_DONE:
                    break
                time.sleep(every)
        except KeyboardInterrupt:
            self.call(reference, "RequestStateChange", expected=range(65536), RequestedState=5)
            raise
        if int(job["JobState"]) not in (7, 32768):
            said = self.call(reference, "GetErrorEx")["Errors"] or job["ErrorDescription"]
            raise RuntimeError(f"the job {JOB_DONE[int(job['JobState'])]}: {said}")
        return reference


def _with_context(what, context):
    body = ET.Element(f"{{{ENUMERATION}}}{what}")
    ET.SubElement(body, f"{{{ENUMERATION}}}EnumerationContext").text = context
    return body


def _selectors(reference):
    selectors = SelectorSet()
    for name, value in reference.selectors.items():
        selectors.add_option(name, value)
    return selectors
