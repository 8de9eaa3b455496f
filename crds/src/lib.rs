//! What users of Tidegate write: the custom resources, their defaults and validation rules.
