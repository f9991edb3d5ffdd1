//! The URIs of the protocol, and the prefixes that Windows prints them with.
//!
//! Prefixes are part of the contract on the way out: clients evaluate XPath with these very letters. On the way in only the URIs
//! count.

/// `s`: SOAP 1.2.
pub(crate) const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
/// `a`: WS-Addressing.
pub(crate) const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
/// `x`: WS-Transfer.
pub(crate) const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
/// `n`: WS-Enumeration.
pub(crate) const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
/// `e`: WS-Eventing.
pub(crate) const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
/// `w`: WS-Management.
pub(crate) const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
/// `p` on the envelope: Microsoft's headers.
pub(crate) const MS_WSMAN: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd";
/// `b`: the CIM binding.
pub(crate) const BINDING: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd";
/// `cim`: elements inside values.
pub(crate) const CIM: &str = "http://schemas.dmtf.org/wbem/wscim/1/common";
/// `wsmid`: Identify.
pub(crate) const IDENTITY: &str = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";
/// `f`: the details of Windows' faults.
pub(crate) const FAULT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault";
/// `xsi`.
pub(crate) const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
/// `cfg`, and the resource of the service's own configuration.
pub(crate) const CONFIG: &str = "http://schemas.microsoft.com/wbem/wsman/1/config";

/// Resource URIs of classes as WMI has them: then the namespace with slashes, and the class.
pub(crate) const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi/";
/// Resource URIs of classes as DSP0230 has them: then the class; the namespace is a selector.
pub(crate) const CIM_SCHEMA: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/";
/// Shells of every kind, which are not served.
pub(crate) const SHELL: &str = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell";
/// PowerShell, likewise.
pub(crate) const POWERSHELL: &str = "http://schemas.microsoft.com/powershell/";

/// The address of whoever is at the other end of the connection.
pub(crate) const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
/// Before the name of a fault's detail.
pub(crate) const FAULT_DETAIL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/";

/// The action of what tells that events were dropped.
pub(crate) const DROPPED_EVENTS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/DroppedEvents";

/// Filters.
pub(crate) const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
/// Filters.
pub(crate) const CQL: &str = "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf";
/// Filters.
pub(crate) const SELECTOR_FILTER: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter";
/// Filters.
pub(crate) const ASSOCIATION_FILTER: &str =
    "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
/// Fragments.
pub(crate) const XPATH: &str = "http://www.w3.org/TR/1999/REC-xpath-19991116";
