use std::io;

use super::simple::Simple;
use super::{Peer, Place, Running};
use crate::server::free_port;

/// Debian's nginx with the Nchan module.
pub(super) struct Nchan;

/// Where Debian's packages put modules.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

impl Peer for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn program(&self) -> Option<&'static str> {
        // Without the module nginx is no peer.
        std::path::Path::new(MODULE).is_file().then_some("nginx")
    }

    fn version_arguments(&self) -> &'static [&'static str] {
        &["-v"]
    }

    fn setup(&self) -> &'static str {
        "nginx with libnginx-mod-nchan, in memory: one worker, backlog 65535, shared memory 256m, buffer of 10,000 messages, no access log"
    }

    fn start(&self, place: &Place<'_>) -> io::Result<Running> {
        let address = free_port()?;
        let folder = place.folder.display();
        let configuration = format!(
            "daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log stderr error;
load_module {MODULE};
events {{ worker_connections 65000; multi_accept on; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  nchan_shared_memory_size 256m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address} backlog=65535;
    location = /pub {{
      nchan_publisher;
      nchan_channel_id $arg_c;
      nchan_message_buffer_length 10000;
    }}
    location = /sub {{
      nchan_subscriber eventsource;
      nchan_channel_id $arg_c;
      nchan_subscriber_first_message newest;
    }}
  }}
}}
"
        );
        let configuration = place.write("nginx.conf", &configuration)?;
        let server = place
            .launch("nginx")?
            .arg("-p")
            .arg(place.folder)
            .arg("-c")
            .arg(configuration)
            .until_it_answers(place.folder, address)?;
        let dialect = Simple {
            listen: "/sub",
            publish: "/pub",
        };
        Ok(Running::single(server, address, dialect))
    }
}
