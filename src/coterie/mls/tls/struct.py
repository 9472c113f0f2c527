"""`Struct`: a class whose annotations are its fields, with constructor, decoder and encoder generated from them."""

from __future__ import annotations

import struct
from enum import IntEnum
from operator import attrgetter
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from coterie.errors import DecodeError
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tls.codecs import (
    RUNTIME,
    Codec,
    Gen,
    json_name,
    kind_of,
)
from coterie.mls.tls.nested import GIVEN, Nested, Select, When, codec_of, own
from coterie.mls.tls.varint import JSON, ends_early


class Field:
    """One declared field: its name, codec, the condition of its presence, its default."""

    __slots__ = ("codec", "default", "has_default", "name", "when")

    def __init__(self, name: str, annotation: Any, default: tuple[Any, ...]) -> None:  # noqa: ANN401
        metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        self.name = name
        self.codec = codec_of(annotation)
        self.when = next((m for m in metadata if isinstance(m, When)), None)
        self.has_default = bool(default)
        self.default = default[0] if default else None


@dataclass_transform(frozen_default=True)
class StructMeta(type):
    """Turns annotations into slots and generates constructor, decoder and encoder."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any
    ) -> StructMeta:
        """Makes the class with slots for the annotated fields."""
        own = [
            f
            for f, hint in namespace.get("__annotations__", {}).items()
            if "ClassVar" not in str(hint)
        ]
        defaults = {f: (namespace.pop(f),) if f in namespace else () for f in own}
        namespace["__slots__"] = (*own, "_raw") if own or not bases else ()
        if bases and not own:
            namespace["__slots__"] = ("_raw",)
        if not bases:
            namespace["__slots__"] = ()
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        if bases:
            _finish(cls, own, defaults)  # type: ignore[arg-type]
        return cls


class Struct(metaclass=StructMeta):
    """The base of every struct; immutable, compared by encoding."""

    _fields: ClassVar[tuple[Field, ...]]
    _confidential: ClassVar[bool] = False
    """Whether a secret is among the fields, or among theirs."""
    _detached: ClassVar[bool] = False
    """Whether a decoded one keeps a copy of its bytes at once, since it is hashed or stored in any case."""
    _raw: ClassVar[Any]
    _decode: ClassVar[Any]
    _build: ClassVar[Any]

    @classmethod
    def decode(cls, data: bytes, given: Any = None) -> Self:  # noqa: ANN401 - see Given
        """Reads a struct that fills `data` exactly; `given` is for structs that select by what stands outside.

        Raises `DecodeError` for anything else, trailing bytes included (§2.1).
        """
        size = len(data)
        try:
            value, end = (
                cls._decode(data, 0, size) if given is None else cls._decode(data, 0, size, given)
            )
        except IndexError:
            raise ends_early(cls.__name__) from None
        if end != size:
            msg = f"{size - end} bytes after the end of {cls.__name__}"
            raise DecodeError(msg, rule=Rule.TRAILING_BYTES)
        return value  # type: ignore[no-any-return]

    @classmethod
    def decode_prefix(cls, data: bytes, pos: int = 0, given: Any = None) -> tuple[Self, int]:  # noqa: ANN401
        """Reads a struct that starts at `pos`; returns it and the position after it."""
        try:
            if given is None:
                result: tuple[Self, int] = cls._decode(data, pos, len(data))
            else:
                result = cls._decode(data, pos, len(data), given)
        except IndexError:
            raise ends_early(cls.__name__) from None
        return result

    def encode(self, given: Any = None) -> bytes:  # noqa: ANN401 - see Given
        """The encoding: the very bytes it was decoded from, or new ones.

        Raises ValueError for a field that is out of its range, of another type, or missing.
        """
        raw = self._raw
        if type(raw) is bytes:
            return raw
        if raw is None:
            try:
                raw = self._build(given)
            except (struct.error, TypeError, AttributeError) as error:
                msg = f"{type(self).__name__} has a field out of range or of another type: {error}"
                raise ValueError(msg) from None
        else:
            raw = raw[0][raw[1] : raw[2]]
        object.__setattr__(self, "_raw", raw)
        return raw  # type: ignore[no-any-return]

    @classmethod
    def assembled(cls, raw: bytes, *values: Any) -> Self:
        """A struct of values whose encoding `raw` is known: they were decoded, or it was put together by the caller."""
        raise NotImplementedError  # generated for each struct

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        values = {f.name: getattr(self, f.name) for f in self._fields}
        return type(self)(**{**values, **changes})

    def to_json(self, given: Any = None) -> JSON:  # noqa: ANN401 - see Given
        """The JSON mapping, documented in `docs/json.md`; `from_json` gives back an equal struct."""
        out: dict[str, JSON] = {}
        for field in self._fields:
            value = getattr(self, field.name)
            if field.when is not None and value is None:
                continue
            codec = self._case(field, given)
            out[field.name] = None if codec is None else codec.to_json(value)
        return out

    def _case(self, field: Field, given: Any) -> Codec | None:  # noqa: ANN401 - see Given
        if not isinstance(field.codec, Select):
            return field.codec
        if field.codec.path == GIVEN:
            return field.codec.case(given)
        return field.codec.case(attrgetter(field.codec.path)(self))

    @classmethod
    def from_json(cls, value: JSON, given: Any = None) -> Self:  # noqa: ANN401 - see Given
        """The struct of a JSON mapping; raises `DecodeError` where it is none."""
        try:
            return cls(**cls._json_fields(value, given))
        except (TypeError, ValueError, AttributeError) as error:
            msg = f"{cls.__name__}: {error}"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING) from error

    @classmethod
    def _json_fields(cls, value: JSON, given: Any) -> dict[str, Any]:  # noqa: ANN401 - see Given
        if not isinstance(value, dict):
            msg = f"expected an object, found {kind_of(value)}"
            raise TypeError(msg)
        unknown = value.keys() - {f.name for f in cls._fields}
        if unknown:
            msg = f"unknown fields {sorted(unknown)}"
            raise ValueError(msg)
        values: dict[str, Any] = {GIVEN: given}
        for field in cls._fields:
            if not cls._expects(field, values, field.name in value):
                values[field.name] = None
                continue
            codec: Codec | None = field.codec
            if isinstance(codec, Nested) and codec.given:
                inner = _selector(values, codec.given)
                values[field.name] = codec.from_json(value[field.name], inner)
                continue
            if isinstance(codec, Select):
                codec = codec.case(_selector(values, codec.path))
            values[field.name] = None if codec is None else codec.from_json(value[field.name])
        del values[GIVEN]
        return values

    @classmethod
    def _expects(cls, field: Field, values: dict[str, Any], present: bool) -> bool:  # noqa: FBT001
        """Whether JSON must have the field; ValueError where that is not what `present` says."""
        expected = True
        if field.when is not None:
            selector = _selector(values, field.when.path)
            # A struct that selects by what stands outside may be read without that being known.
            expected = present if selector is None else selector in field.when.values
        if expected != present:
            msg = f"field {field.name!r} is {'missing' if expected else 'not part of this case'}"
            raise ValueError(msg)
        return expected

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"{type(self).__name__} is immutable; use replace({name}=...)"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"{type(self).__name__} is immutable"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        if type(other) is not type(self):
            return NotImplemented
        return all(
            getattr(self, field.name) == getattr(other, field.name) for field in self._fields
        )

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in self._fields))

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={self._show_field(field)}"
            for field in self._fields
            if field.when is None or getattr(self, field.name) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def _show_field(self, field: Field) -> str:
        value = getattr(self, field.name)
        if field.codec.hidden and isinstance(value, bytes):
            return repr(Secret(value))
        return _show(value)

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields and nothing else: the slice that a struct came from may have more around it.
        if self._confidential:
            msg = f"{type(self).__name__} holds a secret and cannot be pickled"
            raise TypeError(msg)
        return type(self), tuple(getattr(self, field.name) for field in self._fields)


def _selector(values: dict[str, Any], path: str) -> Any:  # noqa: ANN401 - any enum
    """The value at a path that starts with the name of a field that was read already."""
    first, _, rest = path.partition(".")
    return attrgetter(rest)(values[first]) if rest else values[first]


def _show(value: Any) -> str:  # noqa: ANN401 - anything a field can hold
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 8 else f"{value[:8].hex()}…({len(value)})"
    if isinstance(value, IntEnum):
        return json_name(value.name)
    if isinstance(value, tuple):
        inner = ", ".join(map(_show, value[:4])) + (", …" if len(value) > 4 else "")
        return f"({inner})"
    return repr(value)


def _finish(cls: type[Struct], own: list[str], defaults: dict[str, tuple[Any, ...]]) -> None:
    hints = get_type_hints(cls, include_extras=True)
    cls._fields = tuple(Field(name, hints[name], defaults[name]) for name in own)
    cls._confidential = any(field.codec.hidden for field in cls._fields)
    setters = {f"_set_{name}": cls.__dict__[name].__set__ for name in own}
    setters["_set__raw"] = cls.__dict__["_raw"].__set__
    workshop = _workshop(cls)
    _make_init(cls, setters)
    _make_decode(cls, workshop)
    _make_assembled(cls, workshop)
    _make_build(cls)


def _workshop(cls: type[Struct]) -> type:
    """A class of the same layout whose instances can be changed: there a struct is filled that is not made by hand.

    Assigning to plain attributes and then changing the class takes half the time of calling the slots' setters.
    """
    plain = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    namespace = {"__slots__": cls.__dict__["__slots__"], "__module__": cls.__module__, **plain}
    return type.__new__(StructMeta, f"_{cls.__name__}", cls.__bases__, namespace)


def _make_init(cls: type[Struct], setters: dict[str, Any]) -> None:
    gen, parameters = Gen(), []
    for field in cls._fields:
        default = f"={gen.bind(field.default, 'default')}" if field.has_default else ""
        parameters.append(field.name + default)
        gen.add(f"_set_{field.name}(self, {field.name})")
    gen.add("_set__raw(self, None)")
    header = f"__init__({', '.join(['self', *parameters])})"
    cls.__init__ = gen.function(header, setters)  # type: ignore[method-assign]


def _condition(when: When, path: str) -> str:
    if len(when.values) == 1:
        return f"{path} == {int(when.values[0])}"
    return f"{path} in {tuple(int(v) for v in when.values)}"


def _make_decode(cls: type[Struct], workshop: type) -> None:
    gen = Gen()
    gen.add("start = p")
    for field in cls._fields:
        name, indent = f"{cls.__name__}.{field.name}", 0
        if field.when is not None:
            gen.add(f"{field.name} = None")
            gen.add(f"if {_condition(field.when, field.when.path)}:")
            indent = 1
        detach = cls._confidential and field.codec.nests and not field.codec.hidden
        if detach:
            gen.add("first = p", indent)
        field.codec.decode_source(gen, field.name, name, indent)
        if detach:
            # What is public outlives its secret neighbours and must not keep their bytes: read it from a copy.
            gen.add("whole = b, p, e", indent)
            gen.add("b = b[first:p]; p, e = 0, len(b)", indent)
            field.codec.decode_source(gen, field.name, name, indent)
            gen.add("b, p, e = whole", indent)
    _fill(gen, cls, "b[start:p]" if cls._detached else "(b, start, p)")
    gen.add("return self, p")
    names = {**RUNTIME, **_new_names(cls, workshop)}
    cls._decode = staticmethod(gen.function("_decode(b, p, e, given=None)", names))


def _make_assembled(cls: type[Struct], workshop: type) -> None:
    gen = Gen()
    _fill(gen, cls, "raw")
    gen.add("return self")
    header = f"assembled({', '.join(['raw', *(field.name for field in cls._fields)])})"
    cls.assembled = staticmethod(gen.function(header, _new_names(cls, workshop)))  # type: ignore[method-assign]


def _fill(gen: Gen, cls: type[Struct], raw: str) -> None:
    """Code that makes `self` of the locals with the names of the fields."""
    gen.add("self = _new(_workshop)")
    for field in cls._fields:
        gen.add(f"self.{field.name} = {field.name}")
    gen.add(f"self._raw = {raw}")
    gen.add("self.__class__ = _cls")


def _new_names(cls: type[Struct], workshop: type) -> dict[str, Any]:
    return {"_new": object.__new__, "_workshop": workshop, "_cls": cls}


def _make_build(cls: type[Struct]) -> None:
    gen = Gen()
    gen.add("out = []; w = out.append")
    for field in cls._fields:
        value, indent = f"self.{field.name}", 0
        if field.when is not None:
            gen.add(f"if {_condition(field.when, own(field.when.path))}:")
            indent = 1
        if isinstance(field.codec, Nested) and field.codec.given:
            gen.add(f"w({value}.encode({own(field.codec.given)}))", indent)
        else:
            field.codec.encode_source(gen, value, indent)
    gen.add("return b''.join(out)")
    cls._build = gen.function("_build(self, given)", RUNTIME)
