"""Names of services that hand out keys, and where they stand before a value."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Set

#: blanks for all that is no letter and no digit
NO_SIGNS = bytes(char if bytes((char,)).isalnum() else 32 for char in range(256))
#: what stands beside a service's name in one word: hubspotapi, awssecretaccess
NAME_AFFIX = re.compile(
    rb"^(?:x|my)(?=[a-z]{4})|(?:api|app|client|access|secret|private|auth|oauth|prod|live|test|dev|"
    rb"admin|user|server|account|service|refresh|personal|bot|sms|io|sdk|crm|write|read)+$"
)
#: names of services that hand out keys: before `key`, they make a random value a secret
SERVICES = frozenset(
    b"""
    abstract abstractapi abuseipdb accuweather adafruit adobe adyen adzuna aeroworkflow agora aha
    aikido airbrake airship airtable airvisual aiven akamai alchemy alconost alegra aletheia
    aletheiaapi algolia alibaba alienvault aliyun allsports alphavantage amadeus amazon ambee
    amplitude anthropic anypoint apacta api2cart apideck apidog apiflash apifonica apify apilayer
    apimatic apimetrics apiscience apitemplate apollo appcenter appcues appfollow appoptics
    appsflyer appsynergy apptivo artifactory artsy asaas asana assembly assemblyai atera atlassian
    audd auth0 authress autodesk autoklose autopilot avaza aviationstack aws axiom axonaut aylien
    ayrshare azure backblaze bamboohr bannerbear baremetrics baseapi basecamp beamer beebole
    besnappy besttime betterstack billomat binance bing bitbar bitbucket bitcoinaverage bitfinex
    bitly bitmex bitrise bittrex blazemeter blitapp blockfrost blocknative blogger bluemix blynk
    bombbomb boostnote borgbase box boxcom braintree braintrust branchio brandfetch brave brevo
    browserless browserstack browshot bscscan buddyns budibase bugherd bugsnag buildkite bulbul
    bulksms bunnycdn buttercms bybit caflou calendarific calendly calorieninja campayn cannyio
    canva capsulecrm captaindata carboninterface cashboard caspio censys centralstationcrm
    cerebras cexio chargebee chargify chartmogul chatbot chatfule chatwork checio checkly
    checklyhq checkvist cicero circle circleci civo clarifai clay clearbit clearout clerk
    clickhelp clickhouse clicksend clickup cliengo clientary clinchpad clockify clockwork
    clockworksms clojars closecrm cloudant cloudconvert cloudelements cloudflare cloudimage
    cloudinary cloudmersive cloudplan cloudsight cloudsmith cloudways cloverly cloze clustdoc
    cockroach cockroachdb cockroachlabs coda codacy codeclimate codecov codemagic codequiry
    coderabbit cohere coinapi coinbase coinbasepro coingecko coinlayer coinlib coinmarketcap
    collect2 commercejs commercetools commodities companyhub composio configcat confluence
    confluent contentful contentstack conversiontools convertapi convertkit convier copper
    copyscape coralogix countly countrylayer courier coveralls coze craftmypdf crowdin
    cryptocompare currencycloud currencyfreaks currencylayer currencyscoop currentsapi cursor
    customerguru customerio d7network daily dailyco dandelion dareboost databox databricks datadog
    datagov datarobot deadmanssnitch debounce deepai deepgram deepl deepseek deezer delighted
    demio deno dependencytrack deputy detectify detectlanguage devcycle deviantart devin dfuse
    dialpad dictionaryapi diffbot diggernaut digicert digitalocean directus discord discourse
    disqus ditto dixa dnscheck dnsimple docker dockerhub docparser docsumo documo docusign doppler
    dotdigital dotmailer dovico dronahq drone droneci dropbox duffel duo duply dwolla dynalist
    dynatrace dyspatch eagleeyenetworks easyinsight easypost ecostruxureit edamam edenai
    eightxeight elastic elasticemail elasticsearch elevenlabs emailoctopus enablex endor endorlabs
    enigma envoy equinix eraser eraserio etherscan ethplorer etsy eventbrite everflow everhour exa
    exchangerate exchangerateapi exchangeratesapi exoscale expo exportsdk extractorapi facebook
    faceplusplus facepp fal fastforex fastly fastspring fauna faunadb feedier fetchrss fibery
    figma fileio filestack fillout finage financialmodelingprep findl finicity finnhub firebase
    firecrawl fireworks firstpromoter fivetran fixer fixerio flagsmith flatio fleetbase flexport
    flickr flightapi flightaware flightlabs flightstats flowdash flowflu flutterwave flyio fmfw
    followupboss formbucket formcraft formio formsite formspree foursquare fourthwall frameio
    freemius freshbooks freshdesk freshservice freshworks fulcrum fullcontact fullstory fxmarket
    gcp geckoboard gemini gengo geoapify geocod geocode geocodify geocodio geoipifi geoipify
    getemail getemails getgeoapi getgist getresponse getsandbox ghost giphy gitbook gitea github
    gitlab gitter glassnode gnews gocanvas gocardless godaddy goodday google googlemaps gorgias
    gotify grafana graphcms graphhopper greenhouse groove groovehq groq gtmetrix guardian
    guardianapi gumroad guru gyazo hackerone happi happyscribe harness harvest hashnode hellosign
    helpcrunch helpscout hereapi heroku hetzner hibob highlevel hive hiveage holidayapi holistic
    honeybadger honeycomb hootsuite hotjar html2pdf hubspot huggingface humanity humanloop hunter
    hunterio hybiscus hyperbolic hypertrack ibm iconfinder iex iexapis iexcloud imagekit imagga
    imgbb imgix imgur impala infisical influx influxdb infobip infomaniak infracost infura
    insightly instabot instagram instamojo intercom interseller intrinio invoiced invoiceocean
    ionic ip2location ipapi ipdata ipgeolocation ipifi ipify ipinfo ipinfodb ipquality
    ipqualityscore ipregistry ipstack iterable jenkins jfrog jina jira jotform jumio jumpcloud
    jumpseller jupiterone juro kagi kaleyra kanban kanbanflow kanbantool karmacrm keen keenio
    kickbox kickserv klarna klaviyo klipfolio knapsackpro knock kontent kraken kucoin kustomer
    kylas langchain langfuse langsmith languagelayer lark larksuite lastfm lattice launchdarkly
    leadfeeder lemlist lemonsqueezy lendflow less lessannoyingcrm lexigram lighton lightspeed
    linear linemessaging linenotify linkedin linkpreview linode litellm liveagent livechat livekit
    livestorm llamacloud loadmill lob locationiq logdna loggly loginradius logrocket logzio
    lokalise looker loops loyverse lunchmoney luno lytics madkudu magento magicbell magiceden
    magnetic mailboxlayer mailboxvalidator mailchimp mailerlite mailersend mailgun mailjet
    mailjetsms mailmodo mailsac mailtrap mandrill mapbox mapquest maptiler marketo marketstack
    matomo mattermost mavenlink maxio maxmind meaningcloud mediastack meilisearch meistertask mem0
    memberstack meraki mercury mergify mesibo messagebird metaapi metabase metrilo midtrans
    mindmeister mindsdb miro mistral mite mixcloud mixmax mixpanel mockaroo modal moderation
    mollie momento monday mondaycom moneybird mongo mongodb monkeylearn moonclerk moosend moralis
    motherduck mrticktock muapi mux mysql nango nasa nasdaq neon neptune netcore nethunt netlify
    netsuite neutrinoapi newrelic newsapi newscatcher nexmo nftport ngc ngrok nicereply nightfall
    nimble noticeable notion novita novu nozbe npm nuget numverify nutritionix nvidia nylas
    nytimes oanda octoai octopus octopusdeploy oddsapi okta olark omnisend onboardbase onedesk
    onelogin onepagecrm onesignal onfido onfleet onwater oopspam openai openaq opencage
    opencagedata openfigi opengraphr openrouter opensea openuv openvpn openweather openweathermap
    opsgenie optimizely oracle orbit originality ory oura outreach overloop ovh owlbot owm oxylabs
    packagecloud packagist paddle pagarme pagerduty palantir pandadoc pandascore paperform
    paralleldots parsehub parseur particle partnerstack passbase pastebin patreon paydirtapp paymo
    paymoapp paymongo payoneer paypal paystack paytm pdfco pdflayer pdfshift pendo peopledatalabs
    pepipost percy perigon perplexity persona pexels picatic pinata pinecone pingdom pingone
    pinterest pipedream pipedrive piwik pixabay plaid planetscale planview planviewleankit planyo
    plesk plivo podio polar pollsapi poloniex polygon polymarket portainer portkey positionstack
    postageapi postageapp postbacks posthog postman postmark powrbot predicthq prefect prerender
    printful printify privacy privateai productboard producthunt prospect prospectcrm prospectio
    protocolsio proxycrawl pubnub pulumi purestake pushbullet pusher pushover pypi qase qdrant
    qualaroo qualtrics qubole questdb quickbooks quickmetrics quicknode quip railway ramp rapidapi
    raven rawg razorpay rb2b reachmail readme readwise rebrandly recaptcha recombee reddit
    redirectpizza redis refiner reka relevanceai removebg render rentman reoon repairshopr
    replicate replit replyio requestfinance resend restpack retell retellai retool revai revampcrm
    revenuecat ringcentral riot ritekit roaring robinhood rocketreach rockset rollbar ronin
    roninapp rootly route4me rownd rubygems rudderstack runpod runrunit runway runwayml salesblink
    salescookie salesflare salesforce salesloft salesmate samsara sanity satismeter sauce
    saucelabs scale scaleway scalingo scalr scrapeowl scraperapi scraperbox scrapersite
    scrapestack scrapfly scrapingant scrapingbee scrapinghub screenshotapi screenshotlayer
    scrutinizer scrutinizerci seatgeek securitytrails segment selectpdf semaphore sendbird sendfox
    sendgrid sendinblue sendpulse sentiment sentry serpapi serper serphouse serpstack servicenow
    sessionize settlemint sheety sherpadesk shipbob shipday shipengine shippo shipstation shodan
    shopify shortcut shotstack shutterstock sift siftscience sightengine signable signalwire
    signaturit signupgenius signwell sigopt simfin similarweb simplesat simplisafe simplynoted
    simvoly sinch sinchmessage sirv siteleaf skrappio skybiometry slack slite smartlook smartsheet
    smartsheets smartystreets smooch smtp2go snipcart snowflake snyk socialdata solarwinds sonar
    sonarcloud sonarqube sourcegraph spaceship sparkpost spectral spectralops speechmatics
    speechtext speechtextai splunk spoonacular sportmonks sportradar sportsmonk spotify square
    squarespace squareup sslmate stability stackhawk stackoverflow starton statsig statuscake
    statuspage statuspal steam stitch stitchdata stockdata storecove stormboard stormglass
    storyblok storychief strapi strava streak stripe stripo stytch sugester sumologic sumsub
    supabase supernotes surveyanyplace surveybot surveymonkey surveysparrow survicate swell
    swiftype synthesia tableau tailscale tallyfy tatum tatumio tavily taxjar teamcity teamgate
    teamwork teamworkcrm teamworkdesk teamworkspaces technicalanalysisapi tefter telegram telesign
    teletype telnyx tencent terraform testingbot testingfarm testrail textmagic theoddsapi
    thingsboard thinkific thousandeyes thunderstore ticketmaster tickettailor tiingo tiktok
    timecamp timezoneapi tines tinybird tinypng tmdb tmetric todoist together togetherai toggl
    toggltrack tokeet tolgee tomba tomorrow tomorrowio tomtom tradier transferwise travelpayouts
    travis travisci trello triggerdev truelayer truenas trufflehog trustpilot twelvedata
    twelvelabs twilio twist twitch twitter tyntec typeform typesense typetalk ubidots uclassify
    ultravox unifyid unleash unplugg unsplash upcdatabase upcloud uplead uploadcare upollo upstage
    upstash uptimerobot upwave upwork urlscan userflow userlist usersnap userstack vapi vatlayer
    vbout vercel veriff verimail veriphone versioneye viewneo vimeo virustotal visualcrossing
    vmware voiceflow voicegain voicemaker vonage voodoosms vouchery voyage voyageai vpnapi vultr
    vyte wakatime walkscore wandb watchtower weatherapi weatherbit weatherstack weaviate web3
    web3storage webex webflow webscraper webscraping webshare wechat weightsandbiases wepay
    whatsapp whoisxml whoxy windmill wise wistia wit wiz wordpress workable workato workos
    worksnaps workstack worldcoinindex worldtides worldweather wpengine wrike writer xai xendit
    xero yahoo yandex yelp ynab youneedabudget yousign youtube zai zapier zapsign zendesk zenhub
    zenkit zenrows zenscrape zenserp zeplin zerobounce zerossl zerotier zhipu zilliz zipapi
    zipbooks zipcodeapi zipcodebase zoho zohocrm zonkafeedback zoom zoominfo zulip zulipchat zuora
    zuplo
    """.split()
)


def services_backwards(before: bytes, known: Set[bytes]) -> Iterator[bytes]:
    """What may be one of the known services in a text in lower case, from its last word on."""
    words = before.translate(NO_SIGNS).split()
    joined = map(bytes.__add__, words, words[1:])
    if known.isdisjoint([*words, *joined, *map(bare_name, words)]):
        return  # as nearly always, at a third of the time
    for number in range(len(words) - 1, -1, -1):
        yield words[number]
        if number:
            yield words[number - 1] + words[number]
        yield bare_name(words[number])


@functools.lru_cache(maxsize=4096)
def bare_name(word: bytes) -> bytes:
    """A word without the api, key and the like that are written together with a service's name."""
    return NAME_AFFIX.sub(b"", word)
