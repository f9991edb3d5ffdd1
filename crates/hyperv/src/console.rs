//! A machine's screen and keyboard.

use cim::Value;
use machine::Reason;
use wsman::Output;

use crate::method::{Invocation, Refused, invalid};
use crate::state::called;

/// Largest picture of a display that is taken, in bytes: 8k by 8k pixels.
const MAX_PICTURE: u64 = 256 << 20;
/// Widest and highest thumbnail in pixels.
const MAX_THUMBNAIL: u64 = 2048;

/// `GetVirtualSystemThumbnailImage`: the display as rows of 16 bits a pixel (RGB565, little-endian), of the size asked for.
pub(crate) fn thumbnail(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let target = invocation.given("TargetSystem").ok_or_else(|| invalid("TargetSystem", "missing"))?;
    let id = invocation.machine_of("TargetSystem", target)?;
    invocation.permit(Some(id))?;
    let size = |name| {
        let pixels = invocation.number(name)?;
        usize::try_from(pixels)
            .ok()
            .filter(|_| (1..=MAX_THUMBNAIL).contains(&pixels))
            .ok_or_else(|| invalid(name, format!("{pixels} is outside 1 to {MAX_THUMBNAIL}")))
    };
    let (width, height) = (size("WidthPixels")?, size("HeightPixels")?);
    let pixels = invocation.world.host.pixels(id, MAX_PICTURE)?;
    let mut image = Vec::with_capacity(width * height * 2);
    for y in 0..height {
        for x in 0..width {
            let [red, green, blue] = pixels.average((x, width), (y, height)).map(u16::from);
            let both = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3;
            image.extend(both.to_le_bytes().map(Value::from));
        }
    }
    Ok(Output::new(0_u32).with("ImageData", Some(Value::Array(image))))
}

fn press(invocation: &Invocation<'_>, text: Option<&str>, chords: &[String]) -> Result<Output, Refused> {
    let id = called(invocation)?.record.id;
    invocation.permit(Some(id))?;
    invocation.world.host.send_keys(id, text, chords)?;
    Ok(Output::new(0_u32))
}

pub(crate) fn type_text(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let text = invocation.text("asciiText")?;
    press(invocation, Some(text), &[])
}

pub(crate) fn type_key(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let key = key(invocation)?;
    press(invocation, None, &[key])
}

pub(crate) fn type_ctrl_alt_del(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    press(invocation, None, &["ctrl-alt-del".to_owned()])
}

/// The key that `keyCode` says.
fn key(invocation: &Invocation<'_>) -> Result<String, Refused> {
    let code = invocation.number("keyCode")?;
    virtual_key(code).ok_or_else(|| {
        Refused::new(Reason::NotSupported, format!("key {code:#x} has no place on a US keyboard"))
    })
}

fn hold(invocation: &Invocation<'_>, down: bool) -> Result<Output, Refused> {
    let id = called(invocation)?.record.id;
    invocation.permit(Some(id))?;
    invocation.world.host.hold(id, &key(invocation)?, down)?;
    Ok(Output::new(0_u32))
}

/// `PressKey`: the key stays down until it is released.
pub(crate) fn press_key(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    hold(invocation, true)
}

pub(crate) fn release_key(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    hold(invocation, false)
}

/// `IsKeyPressed`: of those that clients hold down; a guest is not asked.
pub(crate) fn is_key_pressed(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let id = called(invocation)?.record.id;
    invocation.permit(Some(id))?;
    let held = invocation.world.host.is_held(id, &key(invocation)?)?;
    Ok(Output::new(0_u32).with("keyState", Some(held.into())))
}

pub(crate) fn type_scan_codes(invocation: &Invocation<'_>) -> Result<Output, Refused> {
    let id = called(invocation)?.record.id;
    invocation.permit(Some(id))?;
    let codes = invocation.given("Scancodes").ok_or_else(|| invalid("Scancodes", "missing"))?;
    let codes: Option<Vec<u8>> =
        codes.elements().iter().map(|code| code.as_u64().and_then(|code| code.try_into().ok())).collect();
    let codes = codes.ok_or_else(|| invalid("Scancodes", "no bytes"))?;
    invocation.world.host.scan_codes(id, &codes)?;
    Ok(Output::new(0_u32))
}

/// The name of a Windows virtual key.
fn virtual_key(code: u64) -> Option<String> {
    let named = match code {
        0x08 => "backspace",
        0x09 => "tab",
        0x0d => "enter",
        0x10 | 0xa0 => "shift",
        0xa1 => "shift_r",
        0x11 | 0xa2 => "ctrl",
        0xa3 => "ctrl_r",
        0x12 | 0xa4 => "alt",
        0xa5 => "altgr",
        0x13 => "pause",
        0x14 => "capslock",
        0x1b => "esc",
        0x20 => "space",
        0x21 => "pageup",
        0x22 => "pagedown",
        0x23 => "end",
        0x24 => "home",
        0x25 => "left",
        0x26 => "up",
        0x27 => "right",
        0x28 => "down",
        0x2c => "print",
        0x2d => "insert",
        0x2e => "del",
        0x5b => "meta",
        0x5c => "meta_r",
        0x5d => "menu",
        0x90 => "numlock",
        0x91 => "scrolllock",
        0xba => ";",
        0xbb => "=",
        0xbc => ",",
        0xbd => "minus",
        0xbe => ".",
        0xbf => "/",
        0xc0 => "`",
        0xdb => "[",
        0xdc => "\\",
        0xdd => "]",
        0xde => "'",
        0x30..=0x39 | 0x41..=0x5a => {
            return char::from_u32(u32::try_from(code).ok()?).map(|c| c.to_ascii_lowercase().to_string());
        }
        0x70..=0x7b => return Some(format!("f{}", code - 0x6f)),
        _ => return None,
    };
    Some(named.to_owned())
}
