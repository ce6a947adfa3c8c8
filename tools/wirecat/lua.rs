//! A dissector for Wireshark and tshark, written from the registry: it takes Tern's frames apart in
//! what they have decrypted. `tern.lua` beside this file is its output; a test compares.

use std::fmt::Write as _;

use tern_protocol::frames::{Field, Layout, Tail, layout};
use tern_protocol::limits::ALPN;
use tern_protocol::{Code, Kind};

/// What Wireshark calls the fields that are no field of one kind.
const COMMON: &str = r#"local tern = Proto("tern", "Tern instant messaging")

local f = {
    length = ProtoField.uint16("tern.length", "Payload bytes", base.DEC),
    kind = ProtoField.uint8("tern.kind", "Kind", base.HEX, KINDS),
    flags = ProtoField.uint8("tern.flags", "Flags", base.HEX),
    last = ProtoField.bool("tern.flags.last", "Last of a list", 8, nil, 1),
    payload = ProtoField.bytes("tern.payload", "Payload"),
"#;

/// How frames are found: one behind the other on the stream, put together across packets; one in
/// each datagram.
const DISSECT: &str = r#"
local malformed = ProtoExpert.new("tern.malformed", "The payload does not fit the kind",
    expert.group.MALFORMED, expert.severity.ERROR)
tern.experts = { malformed }

local function entry(layout, tvb, tree)
    for _, field in ipairs(layout.fields) do
        local name, at, bytes, what = field[1], field[2], field[3], field[4]
        local range = tvb(at, bytes)
        if what == "channel" then
            local low, high = range(0, 8):le_uint64(), range(8, 8):le_uint64()
            local text = (low == UInt64(0)) and ("g" .. tostring(high))
                or (tostring(low) .. "-" .. tostring(high))
            tree:add(f[name], range, text)
        elseif what == "number" then
            tree:add_le(f[name], range)
        else
            tree:add(f[name], range)
        end
    end
end

local function payload(kind, tvb, tree)
    local layout = LAYOUTS[kind]
    if layout == nil then
        tree:add(f.payload, tvb)
        return
    end
    local fixed, bytes = layout.fixed, tvb:len()
    local fits = (layout.tail == "none" and bytes == fixed)
        or (layout.tail == "repeat" and bytes % fixed == 0)
        or (layout.tail ~= "none" and layout.tail ~= "repeat" and bytes >= fixed)
    if not fits then
        tree:add_proto_expert_info(malformed)
        tree:add(f.payload, tvb)
    elseif layout.tail == "repeat" then
        for at = 0, bytes - fixed, fixed do
            local part = tvb(at, fixed)
            entry(layout, part:tvb(), tree:add(tern, part, "Entry"))
        end
    else
        if fixed > 0 then entry(layout, tvb(0, fixed):tvb(), tree) end
        if layout.tail ~= "none" and bytes > fixed then
            tree:add(f[layout.tail], tvb(fixed))
        end
    end
end

local function frame(tvb, at, pinfo, tree)
    local bytes = tvb(at, 2):le_uint()
    local kind = tvb(at + 2, 1):uint()
    local name = KINDS[kind] or string.format("kind 0x%02x", kind)
    local whole = tvb(at, 4 + bytes)
    local branch = tree:add(tern, whole, "Tern " .. name)
    branch:add_le(f.length, tvb(at, 2))
    branch:add(f.kind, tvb(at + 2, 1))
    branch:add(f.flags, tvb(at + 3, 1)):add(f.last, tvb(at + 3, 1))
    if bytes > 0 then payload(kind, tvb(at + 4, bytes):tvb(), branch) end
    return name
end

function tern.dissector(tvb, pinfo, tree)
    local at, names = 0, {}
    while at < tvb:len() do
        if tvb:len() - at < 4 then
            pinfo.desegment_offset, pinfo.desegment_len = at, DESEGMENT_ONE_MORE_SEGMENT
            break
        end
        local need = 4 + tvb(at, 2):le_uint() - (tvb:len() - at)
        if need > 0 then
            pinfo.desegment_offset, pinfo.desegment_len = at, need
            break
        end
        table.insert(names, frame(tvb, at, pinfo, tree))
        at = at + 4 + tvb(at, 2):le_uint()
    end
    if #names > 0 then
        pinfo.cols.protocol = "Tern"
        pinfo.cols.info:append(" " .. table.concat(names, ", "))
    end
    return at
end
"#;

/// Wireshark hands datagrams to nobody, so they are looked for behind its own dissection.
const DATAGRAMS: &str = r#"
-- A QUIC datagram holds one whole frame (SPEC.md, section 2.5); other protocols' hold anything.
local datagrams = Proto("tern_datagram", "Tern by QUIC datagram")
local datagram = Field.new("quic.dg")

function datagrams.dissector(_, pinfo, tree)
    for _, found in ipairs({ datagram() }) do
        local tvb = found.range:tvb()
        if tvb:len() >= 4 and 4 + tvb(0, 2):le_uint() == tvb:len() and KINDS[tvb(2, 1):uint()] then
            frame(tvb, 0, pinfo, tree)
        end
    end
end

register_postdissector(datagrams)
"#;

/// The dissector.
pub fn dissector() -> String {
    let mut lua = String::from(
        "-- Tern's frames in Wireshark and tshark. Written from the registry by `wirecat --lua`.\n\
         --\n\
         --   tshark -X lua_script:tern.lua -o tls.keylog_file:keys.txt -r talk.pcap -Y tern\n\n",
    );
    lua += "local KINDS = {\n";
    for row in Kind::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(lua, "    [{:#04x}] = \"{}\",", row.kind.0, row.label);
    }
    lua += "}\n\nlocal CODES = {\n";
    for row in Code::ALL {
        let _ = writeln!(lua, "    [{:#06x}] = \"{}\",", row.code.0, row.label);
    }
    lua += "}\n\n";
    lua += COMMON;
    let layouts = Kind::ALL.iter().filter_map(|row| Some((row.kind, row.label, layout(row.kind)?)));
    let layouts: Vec<(Kind, &str, Layout)> = layouts.collect();
    for (_, label, layout) in &layouts {
        fields(&mut lua, label, layout);
    }
    lua += "}\ntern.fields = f\n\nlocal LAYOUTS = {\n";
    for (kind, label, layout) in &layouts {
        table(&mut lua, *kind, label, layout);
    }
    lua += "}\n";
    lua += DISSECT;
    let alpn = String::from_utf8_lossy(ALPN);
    let _ = write!(
        lua,
        "\n-- What a QUIC stream carries is found by its ALPN protocol.\n\
         DissectorTable.get(\"quic.proto\"):add(\"{alpn}\", tern)\n"
    );
    lua + DATAGRAMS
}

/// What Wireshark shows a field as.
fn shape(field: &Field) -> (&'static str, &'static str, &'static str) {
    match (field.name, field.bytes) {
        ("channel", 16) => ("string", "", "channel"),
        ("code", 2) => ("uint16", ", base.HEX, CODES", "number"),
        ("kind", 1) if field.text.contains("kind of the frame") => {
            ("uint8", ", base.HEX, KINDS", "number")
        }
        (_, 1) => ("uint8", ", base.DEC", "number"),
        (_, 2) => ("uint16", ", base.DEC", "number"),
        (_, 4) if field.name != "magic" => ("uint32", ", base.DEC", "number"),
        (_, 8) => ("uint64", ", base.DEC", "number"),
        _ => ("bytes", "", "bytes"),
    }
}

fn told(layout: &Layout) -> impl Iterator<Item = &Field> {
    layout.fields.iter().filter(|field| field.name != "reserved")
}

fn fields(lua: &mut String, label: &str, layout: &Layout) {
    let kind = label.to_lowercase();
    for field in told(layout) {
        let (shape, more, _) = shape(field);
        let name = field.name;
        let _ = writeln!(
            lua,
            "    {kind}_{name} = ProtoField.{shape}(\"tern.{kind}.{name}\", \"{name}\"{more}),"
        );
    }
    if let Tail::Bytes(name) = layout.tail {
        let shape = if name == "text" { "string" } else { "bytes" };
        let key = name.replace(' ', "_");
        let _ = writeln!(
            lua,
            "    {kind}_{key} = ProtoField.{shape}(\"tern.{kind}.{key}\", \"{name}\"),"
        );
    }
}

fn table(lua: &mut String, kind: Kind, label: &str, layout: &Layout) {
    let prefix = label.to_lowercase();
    let tail = match layout.tail {
        Tail::None => "none".to_owned(),
        Tail::Repeat => "repeat".to_owned(),
        Tail::Bytes(name) => format!("{prefix}_{}", name.replace(' ', "_")),
    };
    let _ = writeln!(
        lua,
        "    [{:#04x}] = {{ fixed = {}, tail = \"{tail}\", fields = {{",
        kind.0,
        layout.fixed_bytes()
    );
    for field in told(layout) {
        let (_, _, what) = shape(field);
        let (name, at, bytes) = (field.name, field.at, field.bytes);
        let _ = writeln!(lua, "        {{ \"{prefix}_{name}\", {at}, {bytes}, \"{what}\" }},");
    }
    lua.push_str("    } },\n");
}
