"""What pywbem's MOF compiler makes of schema files: one line for each class and member, inherited ones included.

An independent reader for crates/cim/tests/schema.rs. Usage: oracle_pywbem.py NAMESPACE FILE...
"""

import sys

import pywbem
import pywbem_mock


def flag(element, name, default=False):
    qualifier = element.qualifiers.get(name)
    return default if qualifier is None else bool(qualifier.value)


def described(element):
    shape = f"{element.type}{'[]' if element.is_array else ''}"
    return f"{shape} {element.reference_class or '-'}"


def main(namespace, files):
    connection = pywbem_mock.FakedWBEMConnection(default_namespace=namespace)
    for file in files:
        connection.compile_mof_file(file, namespace=namespace)
    names = connection.EnumerateClassNames(namespace, DeepInheritance=True)
    for name in sorted(names, key=str.lower):
        cls = connection.GetClass(name, namespace, LocalOnly=False, IncludeQualifiers=True)
        kinds = [kind for kind in ("Abstract", "Association") if flag(cls, kind)]
        print("class", cls.classname, cls.superclass or "-", *kinds)
        for prop in sorted(cls.properties.values(), key=lambda prop: prop.name.lower()):
            print(" property", prop.name, described(prop), "key" if flag(prop, "Key") else "-")
        for method in sorted(cls.methods.values(), key=lambda method: method.name.lower()):
            print(" method", method.name, method.return_type)
            for parameter in method.parameters.values():
                directions = [word for word, default in (("In", True), ("Out", False)) if flag(parameter, word, default)]
                print("  parameter", parameter.name, described(parameter), *directions)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except pywbem.Error as error:
        sys.exit(f"pywbem refuses it: {error}")
