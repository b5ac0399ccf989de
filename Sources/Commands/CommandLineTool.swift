public enum CommandLineTool {
  public static func run() async {}
}
