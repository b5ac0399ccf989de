internal import CLibYAML

/// What a text consists of, in order: libyaml's parser. Places count from 1, in characters.
final class YAMLEvents {
  struct Place: Equatable {
    var line: Int
    var column: Int
  }

  struct Event {
    enum Kind {
      case scalar(String, isPlain: Bool)
      case sequence, mapping, alias
      case end
      case documentStart, documentEnd
      case streamStart, streamEnd
    }
    var kind: Kind
    var place: Place
    var tag: String?
    /// Of an alias: which one it stands for.
    var anchor: String?
  }

  /// libyaml's own words, which never quote the text.
  struct Fault: Error {
    var problem: String
    var place: Place
    var context: String?
    var contextPlace: Place
  }

  private let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
  private let input: UnsafeMutableBufferPointer<UInt8>

  init(_ text: [UInt8]) {
    input = .allocate(capacity: text.count)
    _ = input.initialize(from: text)
    precondition(yaml_parser_initialize(parser) == 1, "out of memory")
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)  // given, so that a byte order mark decides nothing
    yaml_parser_set_input_string(parser, input.baseAddress, input.count)
  }

  deinit {
    yaml_parser_delete(parser)
    parser.deallocate()
    input.deallocate()
  }

  /// Not to be called behind `streamEnd` or a fault.
  func next() throws(Fault) -> Event {
    var event = yaml_event_t()
    guard yaml_parser_parse(parser, &event) == 1 else { throw fault() }
    defer { yaml_event_delete(&event) }
    var result = Event(kind: .end, place: Self.place(event.start_mark))
    switch event.type {
    case YAML_SCALAR_EVENT:
      let scalar = event.data.scalar
      let bytes = UnsafeBufferPointer(start: scalar.value, count: scalar.length)
      result.kind = .scalar(String(decoding: bytes, as: UTF8.self), isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE)
      (result.tag, result.anchor) = (Self.text(scalar.tag), Self.text(scalar.anchor))
    case YAML_SEQUENCE_START_EVENT:
      result.kind = .sequence
      (result.tag, result.anchor) = (
        Self.text(event.data.sequence_start.tag), Self.text(event.data.sequence_start.anchor)
      )
    case YAML_MAPPING_START_EVENT:
      result.kind = .mapping
      (result.tag, result.anchor) = (
        Self.text(event.data.mapping_start.tag), Self.text(event.data.mapping_start.anchor)
      )
    case YAML_ALIAS_EVENT:
      result.kind = .alias
      result.anchor = Self.text(event.data.alias.anchor)
    case YAML_DOCUMENT_START_EVENT: result.kind = .documentStart
    case YAML_DOCUMENT_END_EVENT: result.kind = .documentEnd
    case YAML_STREAM_START_EVENT: result.kind = .streamStart
    case YAML_STREAM_END_EVENT, YAML_NO_EVENT: result.kind = .streamEnd
    default: break  // the end of a sequence or a mapping
    }
    return result
  }

  private func fault() -> Fault {
    let state = parser.pointee
    var fault = Fault(
      problem: state.problem.map { String(cString: $0) } ?? "this isn't YAML", place: Self.place(state.problem_mark),
      context: state.context.map { String(cString: $0) }, contextPlace: Self.place(state.context_mark))
    // What isn't text at all is found before there are lines.
    if state.error == YAML_READER_ERROR { fault.place = place(ofByte: state.problem_offset) }
    return fault
  }

  private func place(ofByte offset: Int) -> Place {
    let before = String(decoding: input.prefix(offset), as: UTF8.self).unicodeScalars
    let line = before.lastIndex(where: isLineBreak).map { before[before.index(after: $0)...] } ?? before[...]
    return Place(line: before.count(where: isLineBreak) + 1, column: line.count + 1)
  }

  private static func place(_ mark: yaml_mark_t) -> Place { Place(line: mark.line + 1, column: mark.column + 1) }

  private static func text(_ pointer: UnsafeMutablePointer<yaml_char_t>?) -> String? {
    pointer.map { String(cString: $0) }
  }
}
