//! What end-to-end tests share: a client, namespaces of their own, waits for conditions.
