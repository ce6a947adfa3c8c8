-- When a device last logged in, in milliseconds since 1970 UTC; 0 if it never did. Written some
-- time after the login: a server that is killed loses the newest.
ALTER TABLE devices ADD COLUMN last_login_ms BIGINT NOT NULL DEFAULT 0;
