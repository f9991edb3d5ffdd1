//! VMCX/VMRS containers and their XML form: an ordered key tree.

#![forbid(unsafe_code)]
