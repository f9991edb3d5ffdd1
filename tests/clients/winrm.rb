# Ruby's WinRM asks in WQL: the machines, one at a time, and the host. Argument: a machine's name.
require "uri"
require "winrm"

url = URI(ENV.fetch("HYPERV_URL"))
connection = WinRM::Connection.new(
  endpoint: "#{url.scheme}://#{url.host}:#{url.port}/wsman",
  user: url.user,
  password: ENV.fetch("HYPERV_PASSWORD"),
  transport: :plaintext,
  basic_auth_only: true
)

machines = connection.run_wql("SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'", "root/virtualization/v2/*")
names = machines.fetch(:msvm_computer_system).map { |machine| machine.fetch(:element_name) }
abort "no #{ARGV[0]} in #{names}" unless names.include?(ARGV[0])

# Nothing that meets the condition is an empty answer, and no fault.
nothing = connection.run_wql("SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'nobody'", "root/virtualization/v2/*")
abort "somebody: #{nothing}" unless nothing.empty?

host = connection.run_wql("SELECT Version FROM Win32_OperatingSystem")
abort "no version: #{host}" unless host.fetch(:win32_operating_system).first[:version]

# A shell is refused in words.
begin
  connection.shell(:powershell) { |shell| shell.run("hostname") }
  abort "a shell"
rescue WinRM::WinRMWSManFault, WinRM::WinRMSoapFault, WinRM::WinRMHTTPTransportError => e
  abort "no reason: #{e}" unless e.message.include?("no remote shell")
end
