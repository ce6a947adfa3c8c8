-- Plain SQL that SQLite, PostgreSQL and MySQL read alike: secrets and salts are hex text, truth
-- values are 0 or 1, times are milliseconds since 1970 UTC.

-- The last number given of each kind: a number is never given twice, whatever is deleted.
CREATE TABLE numbers (
    kind VARCHAR(16) NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

INSERT INTO numbers (kind, last) VALUES ('uin', 10000);

CREATE TABLE users (
    uin BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(64) NOT NULL UNIQUE,
    disabled SMALLINT NOT NULL,
    created_ms BIGINT NOT NULL,
    device_last BIGINT NOT NULL
);

CREATE TABLE devices (
    uin BIGINT NOT NULL REFERENCES users (uin),
    device BIGINT NOT NULL,
    label VARCHAR(64) NOT NULL,
    salt VARCHAR(64) NOT NULL,
    secret_hash VARCHAR(64) NOT NULL,
    revoked SMALLINT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (uin, device),
    UNIQUE (uin, label)
);
